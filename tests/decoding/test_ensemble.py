"""Where a draft was, tokens come from the mixture of two distributions, exactly; elsewhere from the model's own."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.decoding.ensemble import Ensemble
from fabula.decoding.sample import Sample
from fabula.decoding.strategy import Draw, Strategy, Turn
from fabula.processors.rows import stack
from fabula.taps import NO_TAPS

WEIGHT = 0.3


def logits_of(rows, vocabulary, seed=0):
    return np.random.default_rng(seed).normal(0, 2, (rows, vocabulary)).astype(np.float32)


def softmax(x):
    exponents = np.exp(x - x.max(-1, keepdims=True), dtype=np.float64)
    return exponents / exponents.sum(-1, keepdims=True)


def turn(xp, logits, guesses, sampled=False, seeds=None):
    rows = len(logits)
    draw = Draw.of(seeds or [7] * rows, range(rows), [5] * rows, [sampled] * rows)
    return Turn(xp.asarray(logits, "float32"), stack([[]] * rows), lambda: None, draw, guesses=guesses)


def test_an_ensemble_is_a_strategy():
    strategy: Strategy = Ensemble(WEIGHT)
    assert strategy.taps == NO_TAPS
    assert strategy == Ensemble(WEIGHT) != Ensemble(0.4), "rows of equal strategies share a turn"


def test_probabilities_are_the_weighted_mean_where_there_is_a_guess(xp):
    scores, guess = logits_of(3, 12), logits_of(1, 12, seed=1)[0]
    scores[1, 4], scores[1, 5], guess[5] = -np.inf, -np.inf, -np.inf
    given = [None, xp.asarray(guess, "float32"), None]
    mixed = xp.to_host(Ensemble(WEIGHT).mixed(xp.asarray(scores, "float32"), given))
    expected = WEIGHT * softmax(scores[1]) + (1 - WEIGHT) * softmax(guess)
    assert np.allclose(np.exp(mixed[1]), expected, atol=1e-6)
    assert mixed[1, 5] == -np.inf and np.isfinite(mixed[1, 4]), "what the assistant alone allows may be drawn"
    assert np.array_equal(mixed[[0, 2]], scores[[0, 2]])


def test_an_assistant_of_another_framework_or_vocabulary_has_its_say(xp):
    scores = logits_of(2, 12)
    for size in (9, 15):
        guess = logits_of(1, size, seed=1)[0]
        mixed = xp.to_host(Ensemble(WEIGHT).mixed(xp.asarray(scores, "float32"), [guess, None]))
        other = np.zeros(12)
        other[:size] = softmax(guess[:12])
        assert np.allclose(np.exp(mixed[0]), WEIGHT * softmax(scores[0]) + (1 - WEIGHT) * other, atol=1e-6)


def test_greedy_rows_take_the_mixtures_best_and_scores_are_the_models(xp):
    scores, guesses = logits_of(6, 30), logits_of(6, 30, seed=3)
    choice = Ensemble(WEIGHT).choose(turn(xp, scores, [xp.asarray(row, "float32") for row in guesses]))
    mixture = WEIGHT * softmax(scores) + (1 - WEIGHT) * softmax(guesses)
    assert xp.to_host(choice.tokens).tolist() == mixture.argmax(-1).tolist() != scores.argmax(-1).tolist()
    assert np.array_equal(xp.to_host(choice.scores), scores)


@pytest.mark.parametrize("weight", [0.2, 0.7])
def test_draws_follow_the_mixture_whatever_the_draft_was(weight):
    """The draft is drawn with the same noise, so it stands more often than by chance, and changes no probability."""
    from fabula.arrays import numpy as xp

    draws, vocabulary = 20000, 6
    own, other = logits_of(1, vocabulary)[0], logits_of(1, vocabulary, seed=2)[0]
    seeds = list(range(draws))
    scores, guesses = np.tile(own, (draws, 1)), np.tile(other, (draws, 1))
    tokens = Ensemble(weight).choose(turn(xp, scores, list(guesses), True, seeds)).tokens
    drafts = Sample().choose(turn(xp, guesses, (), True, seeds)).tokens
    expected = weight * softmax(own) + (1 - weight) * softmax(other)
    counts = np.bincount(tokens, minlength=vocabulary)
    assert ((counts - draws * expected) ** 2 / (draws * expected)).sum() < 20.5  # chi-square, 5 degrees: 1 in 1000
    stood = np.mean(tokens == drafts)
    assert stood > np.minimum(expected, softmax(other)).sum() - 0.25 and stood > (expected * softmax(other)).sum()
