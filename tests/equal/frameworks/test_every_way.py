"""One seed, one text: every framework, in every way to decode, gives what PyTorch gives.

All ways are asked of one family, and a cross-section of them of the others: step by step, with the scores of each step.
Rows that need nothing but numbers are then compared as anybody calls for them, where JAX and XLA's TensorFlow have one
compiled loop for all steps. Steps of TensorFlow alone it runs itself, which takes a fraction of the time, but for two.
"""

from __future__ import annotations

import pytest

from tests.equal.frameworks.doors import DOORS
from tests.equal.frameworks.reference import deciding_scores
from tests.equal.frameworks.ways import CLOSED, CODED, WAYS, WHOLE, call_of, inputs_of


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize("way", [way for way in WAYS if way not in CODED])
def test_every_way_to_decode_gives_what_it_gives_in_pytorch(way, backend, table):
    table.hold_steps(WHOLE, way, backend)


@pytest.mark.parametrize("way", ["beams", "states"])
def test_compiled_by_xla_a_step_of_tensorflow_gives_the_same(way, table, folders):
    table.hold_steps(WHOLE, way, "tensorflow", DOORS["tensorflow"].load(folders[WHOLE]))


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize("way", CLOSED)
def test_many_steps_in_one_call_write_the_same_texts(way, backend, table):
    table.hold_texts(WHOLE, way, backend)


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize("way", CODED)
def test_keys_and_values_as_codes_write_the_same_texts(way, backend, table):
    table.hold_texts(WHOLE, way, backend)


@pytest.mark.parametrize("backend", DOORS)
def test_a_row_alone_is_what_it_is_in_a_batch(backend, table):
    table.hold_row_alone(WHOLE, backend)


@pytest.mark.parametrize("backend", DOORS)
def test_prompts_may_be_padded_on_the_right(backend, table):
    table.hold_padded_on_the_right(WHOLE, backend)


def test_what_excuses_a_row_is_what_decided_it(table):
    """The reference's tokens are the best of the scores whose gaps are taken: with the noise, in rows that draw."""
    for way in WAYS:
        call, (_, mask), right = call_of(way), inputs_of(WHOLE, way), table.reference(WHOLE, way)
        if right.gaps is not None and call["eos_token_id"] is None:
            decided = deciding_scores(right.output.scores, mask, call)
            assert decided.argmax(-1).tolist() == right.rows, way
