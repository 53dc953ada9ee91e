"""In JAX every family's logits are those of transformers, and its tokens those of PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula.models.jax import JaxCausalLM  # noqa: E402
from fabula.models.torch import TorchCausalLM  # noqa: E402
from fabula.ops.protocol import Taps  # noqa: E402
from tests.models.configurations import FIRST, read_family, read_tensors, write  # noqa: E402
from tests.models.conftest import Written  # noqa: E402
from tests.models.steps import make_batch, relative_error, shuffled_tables  # noqa: E402

LENGTHS = (41, 64, 36)
BOUND = 1e-5


@pytest.fixture(scope="module", params=FIRST, ids=str)
def written(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    return Written(request.param, write(request.param, directory), directory)


@pytest.fixture(scope="module")
def model(written):
    return JaxCausalLM.from_tensors(read_family(written.directory), read_tensors(written.directory))


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(3)
    return [random.integers(0, 89, length).tolist() for length in LENGTHS]


@pytest.fixture(scope="module")
def expected(written, rows):
    return [written.logits(row) for row in rows]


def test_prompts_in_chunks_and_then_token_by_token_give_the_reference_logits(model, rows, expected):
    tables, blocks = shuffled_tables(rows, np.random.default_rng(0))
    cache, computed = model.new_cache(blocks), [0, 0, 0]
    plans = [[16, 30, 17], [1, 1, 1], [20, 28, 16], [1, 1, 1], [1, 1, 0], [1, 1, 0]]
    for counts in plans:
        chosen = [row for row, count in enumerate(counts) if count]
        counts = [counts[row] for row in chosen]
        logits = model.step(make_batch(rows, chosen, computed, counts, tables), cache).logits
        assert logits.dtype == np.float32
        start = 0
        for row, count in zip(chosen, counts, strict=True):
            right = expected[row][computed[row] : computed[row] + count]
            assert relative_error(logits[start : start + count], right) < BOUND
            start += count
            computed[row] += count
    assert computed == [40, 62, 35]
    assert model.program.compiled == 3  # three rows' chunks, three rows' tokens, two rows' tokens


def test_a_padded_rectangle_gives_the_reference_logits_states_and_weights(model, written):
    tokens = np.random.default_rng(1).integers(0, 89, (2, 9))
    mask = np.ones((2, 9), int)
    mask[0, :4] = 0
    mask[1, 7:] = 0
    output = model(jax.numpy.asarray(tokens), attention_mask=mask, output_hidden_states=True, output_attentions=True)
    for row in range(2):
        own = tokens[row][mask[row] == 1]
        with torch.no_grad():
            right = written.reference(torch.tensor(own[None]), output_hidden_states=True, output_attentions=True)
        seen = mask[row] == 1
        assert relative_error(output.logits[row][seen], right.logits[0]) < BOUND
        assert not np.asarray(output.logits)[row][~seen].any()
        for ours, theirs in zip(output.hidden_states, right.hidden_states, strict=True):
            assert relative_error(ours[row][seen], theirs[0]) < BOUND
        for ours, theirs in zip(output.attentions, right.attentions, strict=True):
            assert relative_error(np.asarray(ours)[row][:, seen][:, :, seen], theirs[0]) < BOUND


def test_drawn_tokens_of_padded_prompts_are_those_of_pytorch(model, written):
    reference = TorchCausalLM.from_tensors(read_family(written.directory), read_tensors(written.directory))
    ids, mask = np.random.default_rng(2).integers(3, 89, (3, 12)), np.ones((3, 12), int)
    mask[0, :5], mask[1, 10:] = 0, 0
    call = {"max_new_tokens": 12, "eos_token_id": None, "pad_token_id": 0, "do_sample": True, "seed": 11}
    right = reference.generate(torch.tensor(ids), attention_mask=torch.tensor(mask), **call)
    ours = model.generate(jax.numpy.asarray(ids), attention_mask=jax.numpy.asarray(mask), **call)
    assert isinstance(ours, jax.Array)
    assert ours.dtype == np.int32
    assert np.array_equal(ours, right)


def test_taps_give_hidden_states_and_weights_of_ragged_rows(model, written, rows):
    layers = tuple(range(len(model.layers)))
    tables, blocks = shuffled_tables(rows[:2], np.random.default_rng(0))
    batch = make_batch(rows[:2], [0, 1], [0, 0], list(LENGTHS[:2]), tables)
    taps = Taps(layers, layers, final_hidden=True, layer_logits=(1,))
    forward = model.step(batch, model.new_cache(blocks), taps)
    place = 0
    for row, tokens in enumerate(rows[:2]):
        with torch.no_grad():
            right = written.reference(torch.tensor([tokens]), output_hidden_states=True, output_attentions=True)
        span = slice(place, place + len(tokens))
        place += len(tokens)
        assert relative_error(forward.hidden[span], right.hidden_states[-1][0]) < BOUND
        for layer in layers:
            assert relative_error(forward.hidden_states[layer][span], right.hidden_states[layer][0]) < BOUND
            assert relative_error(forward.attentions[layer][row], right.attentions[layer][0]) < BOUND
    assert forward.layer_logits[1].shape == forward.logits.shape
