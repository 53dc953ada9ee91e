"""Contrastive search weighs likelihood against likeness, exactly as its definition says."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.decoding.contrastive import ContrastiveSearch
from fabula.decoding.strategy import Search
from fabula.errors import ArgumentError, NumericalError
from fabula.ops.protocol import Forward
from fabula.processors import MinLengthLogitsProcessor, SuppressTokensLogitsProcessor
from fabula.taps import NO_TAPS
from fabula.testing.hash_model import HashModel
from tests.decoding.loop import run_search

VOCABULARY = 40
PROMPT = [3, 1, 4, 1, 5]


class Hidden(HashModel):
    """A hash model with hidden states: fixed random vectors of what came last, in NumPy or in another framework."""

    def __init__(self, xp):
        super().__init__(VOCABULARY)
        self.xp = xp
        self.vectors = np.random.default_rng(9).standard_normal((VOCABULARY, 6), np.float32)

    def step(self, batch, cache, taps=NO_TAPS):
        logits = super().step(batch, cache).logits
        hidden = self.vectors[batch.tokens[batch.scored]] + 0.1 * logits[:, :6]
        return Forward(self.xp.asarray(logits * 2, "float32"), hidden=self.xp.asarray(hidden, "float32"))

    def both(self, tokens):
        """The probabilities after these tokens, and the last one's hidden state, in float64."""
        logits = self.next_logits(tokens).astype(np.float64)
        raised = np.exp(2 * logits - 2 * logits.max())
        return raised / raised.sum(), self.vectors[tokens[-1]] + 0.1 * logits[:6]


def by_definition(model, prompt, count, width, alpha, removed=()):
    """Su et al. 2022, equation 5, spelled out."""
    row = list(prompt)
    for _ in range(count):
        chances = model.both(row)[0]
        chances[list(removed)] = 0
        chances /= chances.sum()
        candidates = np.argsort(-chances, kind="stable")[:width]
        context = [model.both(row[: end + 1])[1] for end in range(len(row))]

        def worth(token, row=row, context=context, chances=chances):
            hidden = model.both([*row, token])[1]
            alike = [hidden @ other / np.linalg.norm(hidden) / np.linalg.norm(other) for other in context]
            return (1 - alpha) * chances[token] - alpha * max(alike)

        row.append(int(max(candidates, key=worth)))
    return row[len(prompt) :]


def until(count, eos=()):
    def ends(row):
        if row[-1] in eos:
            return "stop"
        return "length" if len(row) >= len(PROMPT) + count else None

    return ends


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("width", [2, 5, VOCABULARY, VOCABULARY + 9])
def test_it_is_its_definition(xp, width, alpha):
    model = Hidden(xp)
    (found,), settled, scores = run_search(model, PROMPT, ContrastiveSearch(width, alpha), until(12))
    assert found.tokens.tolist() == settled == by_definition(model, PROMPT, 12, width, alpha)
    assert len(scores) == 12
    for place, step in enumerate(scores):
        assert np.allclose(step[0], 2 * model.next_logits([*PROMPT, *settled[:place]]))


def test_alpha_decides(xp):
    texts = {tuple(run_search(Hidden(xp), PROMPT, ContrastiveSearch(4, a), until(12))[1]) for a in (0.0, 0.6, 1.0)}
    assert len(texts) == 3


def test_it_is_a_search_that_needs_the_prompts_hidden_states():
    search: Search = ContrastiveSearch(4, 0.6)
    assert (search.width, search.results, search.whole_prompt, search.taps.final_hidden) == (4, 1, True, True)
    assert search == ContrastiveSearch(4, 0.6)


def test_it_ends_with_the_chosen_candidate_and_not_with_one_that_lost(xp):
    model = Hidden(xp)
    text = by_definition(model, PROMPT, 12, 4, 0.6)
    (found,), settled, _ = run_search(model, PROMPT, ContrastiveSearch(4, 0.6), until(12, eos={text[7]}))
    end = text.index(text[7]) + 1
    assert (found.tokens.tolist(), found.reason) == (text[:end], "stop") and settled == text[:end]
    lost = set(range(VOCABULARY)) - set(text)
    assert run_search(model, PROMPT, ContrastiveSearch(4, 0.6), until(12, eos=lost))[1] == text


def test_what_processors_remove_is_never_chosen_even_if_little_is_left(xp):
    model, removed = Hidden(xp), list(range(3, VOCABULARY))
    suppress = SuppressTokensLogitsProcessor(removed)
    settled = run_search(model, PROMPT, ContrastiveSearch(8, 0.9), until(10), [suppress])[1]
    assert set(settled) <= {0, 1, 2}
    assert settled == by_definition(model, PROMPT, 10, 3, 0.9, removed)
    only = run_search(model, PROMPT, ContrastiveSearch(8, 1.0), until(4), [SuppressTokensLogitsProcessor(range(1, 40))])
    assert only[1] == [0, 0, 0, 0]


def test_processors_see_the_row_that_won(xp):
    text = by_definition(Hidden(xp), PROMPT, 6, 4, 0.6)
    longer = MinLengthLogitsProcessor(len(PROMPT) + 3, text[1])
    settled = run_search(Hidden(xp), PROMPT, ContrastiveSearch(4, 0.6), until(6), [longer])[1]
    assert text[1] not in settled[:3]


def test_scores_without_a_finite_number_are_an_error(xp):
    with pytest.raises(NumericalError):
        run_search(Hidden(xp), PROMPT, ContrastiveSearch(4, 0.6), until(4), [SuppressTokensLogitsProcessor(range(40))])


@pytest.mark.parametrize(("width", "alpha"), [(1, 0.6), (4, -0.1), (4, 1.1)])
def test_numbers_out_of_range_are_refused(width, alpha):
    with pytest.raises(ArgumentError, match=r"top_k|penalty_alpha"):
        ContrastiveSearch(width, alpha)
