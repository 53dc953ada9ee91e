"""One seed, one text: every framework, in every way to decode, gives what PyTorch gives, for families and real models.

All ways are asked of one family, and a cross-section of them of the others: step by step, with the scores of each step.
Rows that need nothing but numbers are then compared as anybody calls for them, where JAX and XLA's TensorFlow have one
compiled loop for all steps. Steps of TensorFlow alone it runs itself, which takes a fraction of the time, but for two.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tests.equal.frameworks.doors import DOORS, REFERENCE
from tests.equal.frameworks.reference import SHOWN, deciding_scores, new_tokens, reference_of
from tests.equal.frameworks.runs import hold_output, hold_tokens
from tests.equal.frameworks.texts import MIXED, mixed_call, texts_of
from tests.equal.frameworks.ways import CLOSED, CROSS_SECTION, WAYS, call_of, inputs_of
from tests.equal.strategies.tiny import FAMILIES

ALONE = "drawn"
WHOLE = "gemma3"  # whose layers have a pattern
CASES = [(family, way) for family in FAMILIES for way in (WAYS if family == WHOLE else CROSS_SECTION)]
CLOSED_CASES = [(family, way) for family in FAMILIES for way in (CLOSED if family == WHOLE else CLOSED[:1])]


@pytest.fixture(scope="module")
def reference(folders):
    """(family, way) -> what PyTorch gives."""
    model = cache(lambda family: REFERENCE.load(folders[family]))
    return cache(lambda family, way: reference_of(model(family), inputs_of(family, way), call_of(way)))


@pytest.fixture(scope="module")
def load(folders):
    """(family, backend) -> the model."""

    @cache
    def found(family, backend):
        model = DOORS[backend].load(folders[family])
        if backend == "tensorflow":
            model.programs.xla = False
        return model

    return found


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize(("family", "way"), CASES)
def test_every_way_to_decode_gives_what_it_gives_in_pytorch(family, way, backend, reference, load, tally):
    door, model, ids = DOORS[backend], load(family, backend), inputs_of(family, way)
    output = door.generate(model, ids, **call_of(way), **SHOWN)
    with tally.case() as case:
        hold_output(case, f"{family} {way} {backend}", reference(family, way), door, output, ids)


@pytest.mark.parametrize("way", ["beams", "states"])
def test_compiled_by_xla_a_step_of_tensorflow_gives_the_same(way, reference, folders, tally):
    door, ids = DOORS["tensorflow"], inputs_of(WHOLE, way)
    output = door.generate(door.load(folders[WHOLE]), ids, **call_of(way), **SHOWN)
    with tally.case() as case:
        hold_output(case, f"{WHOLE} {way} compiled", reference(WHOLE, way), door, output, ids)


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize(("family", "way"), CLOSED_CASES)
def test_many_steps_in_one_call_write_the_same_texts(family, way, backend, reference, load, tally):
    door, model, ids = DOORS[backend], load(family, backend), inputs_of(family, way)
    rows = new_tokens(door.on_host(door.generate(model, ids, **call_of(way))), ids)
    with tally.case() as case:
        hold_tokens(case, f"{family} {way} {backend} in one call", reference(family, way), rows)


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_alone_is_what_it_is_in_a_batch(family, backend, reference, load, tally):
    """Its seed and stream are those that it has among the others."""
    door, model, (ids, mask) = DOORS[backend], load(family, backend), inputs_of(family, ALONE)
    right = reference(family, ALONE)
    last = len(ids) - 1
    alone = ids[last:], mask[last:]
    output = door.generate(model, alone, **{**call_of(ALONE), "seed": WAYS[ALONE]["seed"][last:]})
    with tally.case() as case:
        hold_tokens(case, f"{family} {backend} alone", right.since(last), new_tokens(door.on_host(output), alone))


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_may_be_padded_on_the_right(family, backend, reference, load, tally):
    door, model, ids = DOORS[backend], load(family, backend), inputs_of(family, "greedy")
    spaces = (ids[1] == 0).sum(1)
    right = tuple(np.stack([np.roll(*pair) for pair in zip(part, -spaces, strict=True)]) for part in ids)
    output = door.generate(model, right, **call_of("greedy"), **SHOWN)
    rows = new_tokens(door.on_host(output.sequences), ids)
    with tally.case() as case:
        hold_tokens(case, f"{family} {backend} padded on the right", reference(family, "greedy"), rows)


@pytest.fixture(scope="module", params=["smollm2_gguf", "gemma_gguf"])
def written(request):
    """A real model's file, and what PyTorch makes of a few texts."""
    path = request.getfixturevalue(request.param)
    return path, texts_of(path), reference_of(REFERENCE.load(path), texts_of(path), mixed_call(MIXED))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", DOORS)
def test_a_real_model_writes_what_it_writes_in_pytorch(written, backend, tally):
    """Greedy rows and rows that draw in one call; of the default model also one of them alone."""
    path, (ids, mask), right = written
    door, what = DOORS[backend], f"{path.stem} {backend}"
    model, last = door.load(path), len(MIXED) - 1
    with tally.case() as case:
        for first in (0, last) if "SmolLM2" in path.stem else (0,):
            rows = ids[first:], mask[first:]
            output = door.generate(model, rows, **mixed_call(MIXED[first:]))
            hold_tokens(case, f"{what} from {first}", right.since(first), new_tokens(door.on_host(output), rows))


def test_what_excuses_a_row_is_what_decided_it(reference):
    """The reference's tokens are the best of the scores whose gaps are taken: with the noise, in rows that draw."""
    for way in WAYS:
        call, (_, mask), right = call_of(way), inputs_of(WHOLE, way), reference(WHOLE, way)
        if right.gaps is not None and call["eos_token_id"] is None:
            decided = deciding_scores(right.output.scores, mask, call)
            assert decided.argmax(-1).tolist() == right.rows, way
