"""DoLa's scores are what its definition says, row by row."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.context import Context
from fabula.decoding.layer_contrast import LayerContrast, premature_layers
from fabula.decoding.sample import Draw
from fabula.decoding.strategy import Strategy, Tapped, Turn
from fabula.errors import ArgumentError, NumericalError
from fabula.processors import SuppressTokensLogitsProcessor, TemperatureLogitsWarper
from fabula.processors.rows import stack

ROWS, VOCABULARY = 5, 60


def given(seed=0, layers=(0, 2, 4)):
    """Logits of the last layer and of earlier ones."""
    random = np.random.default_rng(seed)
    last = random.normal(0, 2, (ROWS, VOCABULARY)).astype(np.float32)
    early = {n: (last * random.random() + random.normal(0, 2, last.shape)).astype(np.float32) for n in layers}
    return last, early


def turn_of(xp, last, early, processors=(), sampled=False):
    tokens = np.ones((ROWS, 4), np.int32)
    lengths = np.full(ROWS, 4, np.int32)
    context = Context(*(xp.asarray(part, "int32") for part in (tokens, lengths, lengths)))
    draw = Draw.of([7] * ROWS, range(ROWS), [4] * ROWS, [sampled] * ROWS)
    tapped = Tapped(layer_logits={layer: xp.asarray(x, "float32") for layer, x in early.items()})
    return Turn(xp.asarray(last, "float32"), stack([processors] * ROWS), lambda: context, draw, tapped)


def log_softmax(x):
    x = x.astype(np.float64)
    return x - x.max() - np.log(np.exp(x - x.max()).sum())


def by_definition(last, early):
    """One row's scores."""
    final = log_softmax(last)
    options = [log_softmax(x) for x in early]

    def distance(option):
        middle = (np.exp(final) + np.exp(option)) / 2
        return (middle * (np.log(middle) - final)).mean() + (middle * (np.log(middle) - option)).mean()

    base = max(options, key=distance)
    return np.where(np.exp(final) < 0.1 * np.exp(final.max()), -np.inf, final - base)


@pytest.mark.parametrize("layers", [(1,), (0, 2, 4)])
def test_scores_are_the_definition_and_rows_choose_their_layer_alone(xp, layers):
    last, early = given(layers=layers)
    strategy: Strategy = LayerContrast(layers)
    choice = strategy.choose(turn_of(xp, last, early))
    expected = np.stack([by_definition(last[row], [early[layer][row] for layer in layers]) for row in range(ROWS)])
    assert np.allclose(xp.to_host(choice.scores), expected, atol=1e-4)
    assert np.array_equal(xp.to_host(choice.tokens), expected.argmax(-1))
    assert strategy.taps.layer_logits == layers


def test_two_rows_that_share_a_batch_contrast_with_different_layers(xp):
    last = np.tile(np.linspace(0, 4, VOCABULARY, dtype=np.float32), (ROWS, 1))
    near, far = last + 0.01, -last
    early = {1: np.where(np.arange(ROWS)[:, None] % 2, far, near), 2: np.where(np.arange(ROWS)[:, None] % 2, near, far)}
    scores = xp.to_host(LayerContrast((1, 2)).choose(turn_of(xp, last, early)).scores)
    assert np.allclose(scores, by_definition(last[0], [far[0]]), atol=1e-4)


def test_processors_come_after_the_contrast_and_sampled_rows_draw(xp):
    last, early = given()
    best = xp.to_host(LayerContrast((0, 2, 4)).choose(turn_of(xp, last, early)).tokens)
    chain = [SuppressTokensLogitsProcessor(sorted(set(best.tolist())))]
    other = xp.to_host(LayerContrast((0, 2, 4)).choose(turn_of(xp, last, early, chain)).tokens)
    assert not set(best.tolist()) & set(other.tolist())
    hot = turn_of(xp, last, early, [TemperatureLogitsWarper(50.0)], sampled=True)
    drawn = xp.to_host(LayerContrast((0, 2, 4)).choose(hot).tokens)
    assert (drawn != best).any()


def test_extreme_logits_do_not_break_the_divergence(xp):
    last, early = given()
    last[0, 0], early[2][0, 0], early[4][1, 1] = 500, -500, 500
    scores = xp.to_host(LayerContrast((0, 2, 4)).choose(turn_of(xp, last, early)).scores)
    assert not np.isnan(scores).any() and np.isfinite(scores.max(-1)).all()


def test_scores_without_a_finite_number_are_an_error(xp):
    last, early = given()
    with pytest.raises(NumericalError):
        LayerContrast((0, 2, 4)).choose(turn_of(xp, last, early, [SuppressTokensLogitsProcessor(range(VOCABULARY))]))


@pytest.mark.parametrize(
    ("asked", "layers", "tied", "expected"),
    [
        ("low", 6, False, (0, 2)),
        ("low", 6, True, (2,)),
        ("low", 4, True, (2,)),
        ("low", 3, True, (2,)),
        ("low", 2, True, (1,)),
        ("low", 1, True, (0,)),
        ("low", 32, False, tuple(range(0, 16, 2))),
        ("low", 80, True, tuple(range(2, 20, 2))),
        ("high", 6, True, (3, 5)),
        ("high", 32, False, tuple(range(16, 32, 2))),
        ("high", 80, False, tuple(range(60, 80, 2))),
        ([3, 1, 3, 9], 6, False, (3, 1)),
    ],
)
def test_layers_are_those_of_the_reference(asked, layers, tied, expected):
    assert premature_layers(asked, layers, tied) == expected


@pytest.mark.parametrize("asked", ["middle", [], [6], [-1]])
def test_layers_that_say_nothing_are_refused(asked):
    with pytest.raises(ArgumentError, match="dola_layers"):
        premature_layers(asked, 6, False)
