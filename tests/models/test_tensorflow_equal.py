"""In TensorFlow every family's logits are those of transformers, compiled by XLA and not."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula.models.tensorflow import TFCausalLM  # noqa: E402  # needs tensorflow
from fabula.models.tensorflow_pass import Programs  # noqa: E402
from fabula.ops.protocol import Taps  # noqa: E402
from tests.models.configurations import CASES, FIRST, read_family, read_tensors, write  # noqa: E402
from tests.models.conftest import Written  # noqa: E402
from tests.models.steps import make_batch, relative_error, shuffled_tables  # noqa: E402

LENGTHS = (41, 64, 36)
BOUND = 1e-5
COMPILED = ("llama", "gemma3-pattern", "gpt2")
CHOSEN = [*FIRST, *(case for case in CASES if case.name in ("gemma3-pattern", "gpt2-layer-scale"))]


@pytest.fixture(scope="module", params=CHOSEN, ids=str)
def written(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    return Written(request.param, write(request.param, directory), directory)


@pytest.fixture(scope="module")
def model(written):
    model = TFCausalLM.from_tensors(read_family(written.directory), read_tensors(written.directory))
    model.programs.xla = False  # compiling costs what all these tests cost
    return model


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(3)
    return [random.integers(0, 89, length).tolist() for length in LENGTHS]


@pytest.fixture(scope="module")
def expected(written, rows):
    return [written.logits(row) for row in rows]


def test_prompts_in_chunks_and_then_token_by_token_give_the_reference_logits(written, model, rows, expected):
    model.programs = Programs(model.weights)
    model.programs.xla = written.case.name in COMPILED
    tables, blocks = shuffled_tables(rows, np.random.default_rng(0))
    cache, computed = model.new_cache(blocks), [0, 0, 0]
    for counts in ([16, 30, 17], [1, 1, 1], [20, 28, 16], [1, 1, 1], [1, 1, 1]):
        chosen = [row for row, count in enumerate(counts) if count]
        counts = [counts[row] for row in chosen]
        logits = model.step(make_batch(rows, chosen, computed, counts, tables), cache).logits
        assert logits.dtype == tf.float32
        start = 0
        for row, count in zip(chosen, counts, strict=True):
            right = expected[row][computed[row] : computed[row] + count]
            assert relative_error(logits[start : start + count], right) < BOUND
            start += count
            computed[row] += count
    assert computed == [39, 61, 36]
    assert len(model.programs.compiled) == 3  # chunks that begin, those that go on, tokens
    model.programs.xla = False


def test_a_padded_rectangle_gives_the_reference_logits_states_and_weights(model, written):
    tokens, mask = np.random.default_rng(1).integers(0, 89, (2, 9)), np.ones((2, 9), int)
    mask[0, :4] = 0
    mask[1, 7:] = 0
    output = model(tf.constant(tokens), attention_mask=mask, output_hidden_states=True, output_attentions=True)
    for row in range(2):
        own, seen = tokens[row][mask[row] == 1], mask[row] == 1
        with torch.no_grad():
            right = written.reference(torch.tensor(own[None]), output_hidden_states=True, output_attentions=True)
        assert relative_error(output.logits[row][seen], right.logits[0]) < BOUND
        assert not output.logits[row][~seen].numpy().any()
        for ours, theirs in zip(output.hidden_states, right.hidden_states, strict=True):
            assert relative_error(ours[row][seen], theirs[0]) < BOUND
        for ours, theirs in zip(output.attentions, right.attentions, strict=True):
            assert relative_error(ours.numpy()[row][:, seen][:, :, seen], theirs[0]) < BOUND


def test_taps_give_what_the_rows_of_a_batch_show(model, written, rows):
    layers = tuple(range(len(model.layers)))
    tables, blocks = shuffled_tables(rows, np.random.default_rng(0))
    batch = make_batch(rows, [2, 0], [0] * 3, [36, 41], tables)
    forward = model.step(batch, model.new_cache(blocks), Taps(layers, layers, final_hidden=True, layer_logits=(1,)))
    place = 0
    for row, tokens in enumerate((rows[2], rows[0])):
        with torch.no_grad():
            right = written.reference(torch.tensor([tokens]), output_hidden_states=True, output_attentions=True)
        span = slice(place, place + len(tokens))
        place += len(tokens)
        assert relative_error(forward.hidden[span], right.hidden_states[-1][0]) < BOUND
        for layer in layers:
            assert relative_error(forward.hidden_states[layer][span], right.hidden_states[layer][0]) < BOUND
            assert relative_error(forward.attentions[layer][row], right.attentions[layer][0]) < BOUND
    assert forward.layer_logits[1].shape == forward.logits.shape
