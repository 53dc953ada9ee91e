"""Draws follow the softmax of the scores and depend on nothing but the row's own key."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.arrays import numpy as reference
from fabula.context import Context
from fabula.decoding.sample import Draw, Sample, drawn_tokens
from fabula.decoding.strategy import Strategy, Turn
from fabula.errors import NumericalError
from fabula.processors import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from fabula.processors.rows import stack
from fabula.taps import NO_TAPS


def context_of(xp, rows):
    """Rows of three tokens, two of them prompt."""
    tokens = np.arange(rows * 3, dtype=np.int32).reshape(rows, 3)
    lengths = np.full(rows, 3, dtype=np.int32)
    return Context(*(xp.asarray(part, "int32") for part in (tokens, lengths, lengths - 1)))


def choose(xp, logits, draw, process=None):
    """Tokens as NumPy."""
    process, context = process or stack([[]] * len(logits)), context_of(xp, len(logits))
    choice = Sample().choose(Turn(xp.asarray(logits, "float32"), process, lambda: context, draw))
    tokens = xp.to_host(choice.tokens)
    assert tokens.dtype == np.int32
    return tokens


def logits_of(rows, vocabulary, seed=0):
    return np.random.default_rng(seed).normal(0, 2, (rows, vocabulary)).astype(np.float32)


def draw_of(rows, sampled=True, seed=7):
    return Draw.of(
        [seed + row % 3 for row in range(rows)], range(rows), [3 * row for row in range(rows)], [sampled] * rows
    )


def test_sample_is_a_strategy():
    strategy: Strategy = Sample()
    assert strategy.taps == NO_TAPS
    assert strategy == Sample(), "rows of equal strategies share a turn"


def test_greedy_rows_take_the_first_maximum(xp):
    logits = np.array([[0.0, 3.0, 3.0], [5.0, 1.0, 5.0], [-np.inf, -np.inf, -4.0]])
    assert choose(xp, logits, draw_of(3, sampled=False)).tolist() == [1, 0, 2]


def test_all_frameworks_draw_the_same_tokens(xp):
    logits = logits_of(16, 5000)
    process = stack([LogitsProcessorList([TemperatureLogitsWarper(0.8), TopKLogitsWarper(50)])] * 16)
    for chain in (None, process):
        expected = choose(reference, logits, draw_of(16), chain)
        assert np.array_equal(choose(xp, logits, draw_of(16), chain), expected)


def test_a_rows_draw_is_the_same_alone_in_any_batch_and_in_any_order(xp):
    logits, draw = logits_of(9, 700), draw_of(9)
    recipes = [
        LogitsProcessorList([TopKLogitsWarper(row + 2)] if row % 2 else [TemperatureLogitsWarper(0.5 + row / 10)])
        for row in range(9)
    ]
    together = choose(xp, logits, draw, stack(recipes))
    for row in range(9):
        alone = choose(xp, logits[row : row + 1], draw.select(np.array([row])), stack(recipes[row : row + 1]))
        assert alone[0] == together[row]
    order = np.random.default_rng(0).permutation(9)
    shuffled = choose(xp, logits[order], draw.select(order), stack([recipes[row] for row in order]))
    assert np.array_equal(shuffled, together[order])


def test_greedy_and_sampled_rows_share_a_batch(xp):
    logits, everywhere = logits_of(6, 300), draw_of(6)
    sampled = np.array([True, False, True, True, False, False])
    draw = Draw(sampled, everywhere.seed_low, everywhere.seed_high, everywhere.stream, everywhere.position)
    expected = np.where(sampled, choose(xp, logits, everywhere), logits.argmax(axis=-1))
    assert np.array_equal(choose(xp, logits, draw), expected)


def test_what_is_removed_does_not_change_the_draw_among_the_rest(xp):
    logits = logits_of(1, 200)
    draw = draw_of(1)
    winner = choose(xp, logits, draw)[0]
    kept = np.full_like(logits, -np.inf)
    kept[0, [3, 50, winner, 199]] = logits[0, [3, 50, winner, 199]]
    assert choose(xp, kept, draw)[0] == winner


CHAINS = {
    "as it is": [],
    "temperature": [TemperatureLogitsWarper(0.6)],
    "top-k and top-p": [TopKLogitsWarper(12), TopPLogitsWarper(0.8)],
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_draws_follow_the_softmax_of_the_processed_scores(chain):
    draws, vocabulary = 40_000, 30
    scores = np.repeat(logits_of(1, vocabulary), draws, axis=0)
    processed = LogitsProcessorList(chain).process(scores, context_of(reference, draws))
    draw = Draw.of([11] * draws, range(draws), [5] * draws, [True] * draws)
    counts = np.bincount(drawn_tokens(reference, processed, draw), minlength=vocabulary)
    expected = reference.softmax(processed[0].astype(np.float64)) * draws
    assert (counts[expected == 0] == 0).all()
    likely = expected > 5
    statistic = ((counts - expected)[likely] ** 2 / expected[likely]).sum()
    freedom = likely.sum() - 1
    assert statistic < freedom + 4 * np.sqrt(2 * freedom)  # four standard deviations of chi-square


def test_draws_of_one_stream_at_successive_positions_follow_the_softmax():
    draws = 40_000
    scores = np.repeat(np.log([[0.5, 0.3, 0.15, 0.05]]).astype(np.float32), draws, axis=0)
    draw = Draw.of([3] * draws, [0] * draws, range(draws), [True] * draws)
    counts = np.bincount(drawn_tokens(reference, scores, draw), minlength=4) / draws
    assert np.abs(counts - [0.5, 0.3, 0.15, 0.05]).max() < 0.01


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_row_without_a_finite_score_is_an_error_that_names_it(xp, sampled, value):
    logits = logits_of(3, 20)
    logits[1] = value
    with pytest.raises(NumericalError, match="row 1"):
        choose(xp, logits, draw_of(3, sampled))
