"""In every framework each family's logits, hidden states and attention weights are those of transformers."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula.ops.protocol import Taps  # noqa: E402
from tests.equal.frameworks.doors import DOORS, REFERENCE  # noqa: E402
from tests.models.configurations import CASES, FIRST  # noqa: E402
from tests.models.steps import make_batch, relative_error, shuffled_tables  # noqa: E402

LENGTHS = (41, 64, 36)
PLANS = ([16, 30, 17], [1, 1, 1], [20, 28, 16], [1, 1, 1], [1, 1, 0], [1, 1, 0])
BOUND = 1e-5
CHOSEN = {
    "torch": CASES,
    "jax": FIRST,
    "tensorflow": (*FIRST, *(case for case in CASES if case.name in ("gemma3-pattern", "gpt2-layer-scale"))),
}
PAIRS = [(case, backend) for case in CASES for backend, chosen in CHOSEN.items() if case in chosen]
# Programs that the plans need: chunks, three rows' tokens, two rows' tokens; TensorFlow has one for rows' beginnings.
COMPILED = {
    "torch": lambda model: 0,
    "jax": lambda model: model.program.compiled,
    "tensorflow": lambda model: len(model.programs.compiled) - 1,
}
WITH_XLA = ("gemma3-pattern", "gpt2")  # compiling in TensorFlow costs what all these tests cost


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def side(request, writing):
    """The reference, a framework, and its model."""
    case, backend = request.param
    written, door = writing(case.name), {"torch": REFERENCE, **DOORS}[backend]
    model = door.load(written.directory)
    if backend == "tensorflow":
        model.programs.xla = case.name in WITH_XLA
    return written, door, model


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(3)
    return [random.integers(0, 89, length).tolist() for length in LENGTHS]


@torch.no_grad()
def shown(written, tokens):
    """What transformers gives for one row."""
    return written.reference(torch.tensor([tokens]), output_hidden_states=True, output_attentions=True)


def test_prompts_in_chunks_and_then_token_by_token_give_the_reference_logits(side, rows):
    written, door, model = side
    expected = [written.logits(row) for row in rows]
    tables, blocks = shuffled_tables(rows, np.random.default_rng(0))
    cache, computed = model.new_cache(blocks), [0, 0, 0]
    for plan in PLANS:
        chosen = [row for row, count in enumerate(plan) if count]
        counts = [plan[row] for row in chosen]
        logits = np.asarray(model.step(make_batch(rows, chosen, computed, counts, tables), cache).logits)
        assert logits.dtype == np.float32
        start = 0
        for row, count in zip(chosen, counts, strict=True):
            right = expected[row][computed[row] : computed[row] + count]
            assert relative_error(logits[start : start + count], right) < BOUND
            start += count
            computed[row] += count
    assert computed == [40, 62, 35]
    assert COMPILED[door.backend](model) == (0 if door.backend == "torch" else 3)
    if door.backend == "tensorflow":
        model.programs.xla = False


@torch.no_grad()
def test_a_padded_rectangle_gives_the_reference_logits_states_and_weights(side):
    written, door, model = side
    tokens, mask = np.random.default_rng(1).integers(0, 89, (2, 9)), np.ones((2, 9), int)
    mask[0, :4] = 0
    mask[1, 7:] = 0
    output = door.forward(model, (tokens, mask), output_hidden_states=True, output_attentions=True)
    logits = door.on_host(output.logits)
    for row in range(2):
        seen = mask[row] == 1
        right = shown(written, tokens[row][seen].tolist())
        assert relative_error(logits[row][seen], right.logits[0]) < BOUND
        assert not logits[row][~seen].any()
        for ours, theirs in zip(output.hidden_states, right.hidden_states, strict=True):
            assert relative_error(door.on_host(ours)[row][seen], theirs[0]) < BOUND
        for ours, theirs in zip(output.attentions, right.attentions, strict=True):
            assert relative_error(door.on_host(ours)[row][:, seen][:, :, seen], theirs[0]) < BOUND


def test_taps_give_what_the_rows_of_a_batch_show(side, rows):
    written, _, model = side
    layers, chosen = tuple(range(len(model.layers))), [2, 0]
    tables, blocks = shuffled_tables(rows, np.random.default_rng(0))
    batch = make_batch(rows, chosen, [0] * 3, [LENGTHS[row] for row in chosen], tables)
    taps = Taps(layers, layers, final_hidden=True, layer_logits=(1,))
    forward = model.step(batch, model.new_cache(blocks), taps)
    place = 0
    for index, row in enumerate(chosen):
        right = shown(written, rows[row])
        span = slice(place, place + LENGTHS[row])
        place += LENGTHS[row]
        assert relative_error(forward.hidden[span], right.hidden_states[-1][0]) < BOUND
        for layer in layers:
            assert relative_error(forward.hidden_states[layer][span], right.hidden_states[layer][0]) < BOUND
            assert relative_error(forward.attentions[layer][index], right.attentions[layer][0]) < BOUND
    assert forward.layer_logits[1].shape == forward.logits.shape
