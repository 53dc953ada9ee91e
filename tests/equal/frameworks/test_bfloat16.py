"""In bfloat16 frameworks round differently: they predict what PyTorch does in float32, as nearly as bfloat16 can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fabula import AutoTokenizer, arrays
from fabula.arrays import numpy as host
from fabula.arrays.random import gumbel
from tests.equal.frameworks.doors import DOORS, REFERENCE

TEXT = Path(__file__).parents[1] / "data" / "perplexity.txt"
ROWS, POSITIONS = 4, 64
NEAREST, FARTHEST = 4e-4, 3e-3  # of float16 a tenth would be seen, of one bit less four times as much
APART = 0.04  # the share of a prediction that goes to other tokens
DRAWN_APART = 0.06  # and of tokens drawn with the same noise
BACKENDS = {"torch": REFERENCE, **{name: door for name, door in DOORS.items() if name != "native"}}


@pytest.fixture(scope="module")
def text(smollm2_gguf):
    """Int["4 64"] of the text, and all positions' log-probabilities Float64["256 V"] in float32."""
    ids = AutoTokenizer.from_pretrained(smollm2_gguf)(TEXT.read_text(encoding="utf-8"))["input_ids"]
    tokens = np.array(ids[: ROWS * POSITIONS], np.int32).reshape(ROWS, POSITIONS)
    return tokens, predicted(REFERENCE, REFERENCE.load(smollm2_gguf), tokens)


def predicted(door, model, tokens):
    """Float64["positions V"]: log-probabilities of the token behind every position."""
    logits = door.forward(model, (tokens, np.ones_like(tokens))).logits
    logits = door.on_host(arrays.of(logits).astype(logits, "float32")).astype(np.float64)
    logits = logits.reshape(-1, logits.shape[-1])
    return logits - np.logaddexp.reduce(logits, -1, keepdims=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_predictions_are_as_near_those_in_float32_as_bfloat16_is(text, smollm2_gguf, backend):
    tokens, right = text
    model = BACKENDS[backend].load(smollm2_gguf, dtype="bfloat16")
    assert "bfloat16" in str(model.dtype)
    ours = predicted(BACKENDS[backend], model, tokens)
    divergence = (np.exp(right) * (right - ours)).sum(-1).mean()
    apart = np.abs(np.exp(right) - np.exp(ours)).sum(-1).mean() / 2
    changed = (drawn(right) != drawn(ours)).mean()
    print(f"{backend}: mean KL {divergence:.2e}, mean total variation {apart:.2e}, draws {changed:.3f}")
    assert NEAREST < divergence < FARTHEST
    assert apart < APART
    assert changed < DRAWN_APART


def drawn(log_probabilities):
    """Int["positions"]: a token for each with keyed noise. Draws differ at least as often as predictions do."""
    seed = (np.int32([7]), np.int32([0]))
    place, tokens = (np.arange(size, dtype=np.int32) for size in log_probabilities.shape)
    zeros = np.zeros_like(place)
    return (log_probabilities + gumbel(host, seed, zeros, place, tokens[None])).argmax(-1)
