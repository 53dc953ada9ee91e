"""In PyTorch, beside what all frameworks are compared in: logits of any chunks, pasts and 16 bits are transformers'."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fabula.models.torch import TorchCausalLM  # noqa: E402
from tests.models.configurations import read_parts  # noqa: E402
from tests.models.steps import CHUNKS, make_batch, relative_error, shuffled_tables, stepped_logits  # noqa: E402
from tests.padding import padded  # noqa: E402

LENGTHS = (45, 1, 17, 70, 33)
BOUND = 1e-5
rectangle = partial(padded, convert=torch.as_tensor)


@pytest.fixture(scope="module")
def model(written):
    return TorchCausalLM.from_tensors(*read_parts(written.directory))


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(3)
    return [random.integers(0, 89, length).tolist() for length in LENGTHS]


@pytest.fixture(scope="module")
def expected(written, rows):
    return [written.logits(row) for row in rows]


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
def test_steps_give_the_reference_logits_in_any_chunks(model, rows, expected, chunk):
    for ours, reference in zip(stepped_logits(model, rows, chunk), expected, strict=True):
        assert relative_error(ours, reference) < BOUND


def test_scored_positions_alone_give_the_same_logits(model, rows, expected):
    tables, blocks = shuffled_tables(rows, np.random.default_rng(1))
    batch = make_batch(rows, [0, 1, 2, 3, 4], [0] * 5, list(LENGTHS), tables)
    last = batch.starts[1:] - 1
    batch = type(batch)(batch.tokens, batch.starts, batch.first, batch.tables, last)
    logits = model.step(batch, model.new_cache(blocks)).logits
    assert logits.dtype == torch.float32
    assert relative_error(logits, [row[-1] for row in expected]) < BOUND


def test_a_row_padded_on_either_side_gives_what_it_gives_alone(model, rows, expected):
    for side in ("left", "right"):
        ids, mask = rectangle(rows, side)
        with torch.no_grad():
            logits = model(ids, attention_mask=mask).logits
        for row, reference in enumerate(expected):
            assert relative_error(logits[row][mask[row].bool()], reference) < BOUND
            assert not logits[row][~mask[row].bool()].any()


def test_a_past_continues_padded_rows(model, rows, expected):
    ids, mask = rectangle(rows[:1] + rows[2:3], "left")
    with torch.no_grad():
        past = model(ids[:, :30], attention_mask=mask[:, :30]).past_key_values
        assert past.get_seq_length() == 30
        pieces = [model(ids[:, 30:33], attention_mask=mask[:, :33], past_key_values=past).logits]
        pieces += [model(ids[:, i : i + 1], past_key_values=past).logits for i in range(33, 45)]
    logits = torch.cat(pieces, 1)
    assert relative_error(logits[0], expected[0][30:]) < BOUND
    assert relative_error(logits[1][-15:], expected[2][-15:]) < BOUND


def test_the_state_dict_is_that_of_transformers(model, written):
    ours, reference = model.state_dict(), written.reference.state_dict()
    assert set(ours) == set(reference)
    assert all(torch.equal(ours[name], reference[name]) for name in ours)
    assert model.num_parameters() == written.reference.num_parameters()


def test_sixteen_bits_stay_close_to_transformers_in_sixteen_bits(written, rows):
    from transformers import AutoModelForCausalLM

    model = TorchCausalLM.from_tensors(*read_parts(written.directory), dtype="bfloat16")
    reference = AutoModelForCausalLM.from_pretrained(written.directory, dtype="bfloat16")
    ids = torch.tensor([rows[0]])
    with torch.no_grad():
        ours, theirs = model(ids).logits, reference(ids).logits
    assert ours.dtype == torch.bfloat16
    assert relative_error(ours.float(), theirs.float()) < 0.01
