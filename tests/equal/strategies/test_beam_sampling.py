"""Beam sampling gives the texts that transformers gives, as often as it does."""

from collections import Counter

import pytest

from tests.equal.strategies.runs import BACKENDS
from tests.equal.strategies.statistics import assert_drawn_from, assert_same_distribution
from tests.equal.strategies.tiny import prompts

torch = pytest.importorskip("torch")

SEARCHES = 400
SETTINGS = {"do_sample": True, "num_beams": 2, "top_k": 4, "pad_token_id": 0}
VARIANTS = (
    {"eos_token_id": None, "num_return_sequences": 2},
    {"eos_token_id": [31, 48], "num_return_sequences": 1, "length_penalty": 0.5, "temperature": 1.5},
)


@pytest.mark.parametrize("settings", VARIANTS, ids=["to the limit", "some end"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_texts_are_as_frequent_as_those_of_transformers(backend, settings, tiny, theirs):
    given = {**SETTINGS, "max_new_tokens": 2, **settings}
    prompt = prompts("mistral")[0]
    torch.manual_seed(0)
    reference = theirs("mistral").generate(torch.tensor([prompt] * SEARCHES), **given)
    ours = tiny("mistral", backend).generate([prompt] * SEARCHES, seed=4, **given)
    assert_same_distribution(texts(reference.tolist(), prompt, given), texts(ours, prompt, given))


def texts(rows, prompt, given):
    """How often each search gave which texts, end tokens included."""
    ends = given["eos_token_id"] or []
    new = [[int(token) for token in row[len(prompt) :]] for row in rows]
    cut = [tuple(row[: next((place + 1 for place, token in enumerate(row) if token in ends), None)]) for row in new]
    each = given["num_return_sequences"]
    return Counter(tuple(cut[place : place + each]) for place in range(0, len(cut), each))


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_step_draws_without_replacement(backend, tiny, theirs):
    """Two beams of one token: p(a) p(b) / (1 - p(a)), in either order."""
    prompt = prompts("llama")[0]
    given = {**SETTINGS, "max_new_tokens": 1, "eos_token_id": None, "num_return_sequences": 2}
    with torch.no_grad():
        logits = theirs("llama")(torch.tensor([prompt])).logits[0, -1].double()
    kept = logits.topk(4)
    p = dict(zip(kept.indices.tolist(), kept.values.softmax(-1).tolist(), strict=True))
    pairs = {frozenset((a, b)): p[a] * p[b] / (1 - p[a]) + p[a] * p[b] / (1 - p[b]) for a in p for b in p if a != b}
    rows = tiny("llama", backend).generate([prompt] * SEARCHES, seed=9, **given)
    counts = Counter(frozenset((int(a[-1]), int(b[-1]))) for a, b in zip(rows[::2], rows[1::2], strict=True))
    assert_drawn_from(counts, pairs)
