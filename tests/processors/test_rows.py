"""A row's scores do not depend on the processors of the rows beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula import arrays
from fabula import processors as p
from fabula.arrays import numpy as reference
from fabula.context import Context
from fabula.processors.rows import Everywhere, Masked, Partial, select, stack

VOCABULARY = 40


class Mine:
    """A callable written for transformers."""

    def __init__(self, token):
        self.token = token

    def __call__(self, input_ids, scores):
        return scores + arrays.of(scores).where(input_ids[:, -1:] == self.token, 2.0, 0.0)


def ragged(xp, rows, seed=0):
    """Scores and contexts of rows of different lengths, with rubbish beyond them."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(2, 12, rows).astype(np.int32)
    tokens = generator.integers(0, 9, (rows, 14)).astype(np.int32)
    tokens[np.arange(14)[None, :] >= lengths[:, None]] = 99
    scores = generator.normal(0, 3, (rows, VOCABULARY)).astype(np.float32)
    context = Context(*(xp.asarray(part, "int32") for part in (tokens, lengths, lengths - 1)))
    return xp.asarray(scores, "float32"), context


CHOICES = [
    lambda i: p.SequenceBiasLogitsProcessor({(1, 2): 3.0, (i + 3,): -2.0}),
    lambda i: p.RepetitionPenaltyLogitsProcessor(1.1 + i / 10),
    lambda i: p.NoRepeatNGramLogitsProcessor(1 + i % 2),
    lambda i: p.MinLengthLogitsProcessor(4 + i, [1, 2]),
    lambda i: p.MinNewTokensLengthLogitsProcessor(2, 1 + i, [1 + i % 2]),
    lambda i: p.ForcedEOSTokenLogitsProcessor(5 + i, 3),
    lambda i: p.ExponentialDecayLengthPenalty((i, 1.2), [4], 1),
    lambda i: p.SuppressTokensLogitsProcessor([i]),
    lambda i: Mine(i),
    lambda i: p.TemperatureLogitsWarper(0.5 + i / 4),
    lambda i: p.TopHLogitsWarper(0.5 + i / 10),
    lambda i: p.TopKLogitsWarper(30 - i),
    lambda i: p.TopPLogitsWarper(0.9 - i / 10),
    lambda i: p.MinPLogitsWarper(i / 100),
    lambda i: p.TypicalLogitsWarper(0.9 - i / 10),
    lambda i: p.EpsilonLogitsWarper(0.001 * (i + 1)),
    lambda i: p.EtaLogitsWarper(0.001 * (i + 1)),
    lambda i: p.LogitNormalization(),
]
ROW = st.lists(st.integers(0, len(CHOICES) - 1), max_size=6, unique=True).map(sorted)


def recipes_of(plan, seed=0):
    generator = np.random.default_rng(seed)
    return [p.LogitsProcessorList([CHOICES[kind](int(generator.integers(0, 4))) for kind in row]) for row in plan]


def assert_rows_are_independent(xp, recipes, exact):
    scores, context = ragged(xp, len(recipes))
    together = xp.to_host(stack(recipes)(scores, context))
    for row, recipe in enumerate(recipes):
        index = xp.asarray([row], "int32")
        alone = xp.to_host(recipe.process(xp.take(scores, index), select(context, index)))[0]
        assert np.array_equal(np.isneginf(alone), np.isneginf(together[row]))
        if exact:
            assert np.array_equal(alone, together[row], equal_nan=True)
        finite = np.isfinite(alone)
        np.testing.assert_allclose(together[row][finite], alone[finite], rtol=1e-5, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=6))
def test_every_row_is_processed_as_if_it_were_alone(plan):
    assert_rows_are_independent(reference, recipes_of(plan), exact=True)


@pytest.mark.parametrize("seed", range(8))
def test_every_row_is_processed_as_if_it_were_alone_on_every_framework(xp, seed):
    generator = np.random.default_rng(seed)
    plan = [sorted(generator.choice(len(CHOICES), generator.integers(0, 7), replace=False)) for _ in range(5)]
    assert_rows_are_independent(xp, recipes_of(plan, seed), exact=False)


@pytest.mark.parametrize("kind", range(len(CHOICES)))
def test_rows_that_lack_a_processor_stay_exactly_as_they_are(xp, kind):
    recipes = [p.LogitsProcessorList(), p.LogitsProcessorList([CHOICES[kind](1)]), p.LogitsProcessorList()]
    scores, context = ragged(xp, 3)
    host = xp.to_host(scores).copy()
    host[0, 5:9] = -np.inf
    got = xp.to_host(stack(recipes)(xp.asarray(host, "float32"), context))
    assert np.array_equal(got[[0, 2]], host[[0, 2]])


def test_every_rows_order_is_kept_where_orders_differ(xp):
    hot, top = p.TemperatureLogitsWarper(3.0), p.MinPLogitsWarper(0.2)
    recipes = [p.LogitsProcessorList([hot, top]), p.LogitsProcessorList([top, hot])]
    assert_rows_are_independent(xp, recipes, exact=False)


def test_processors_with_numbers_become_one_pass():
    recipes = [[p.TemperatureLogitsWarper(0.5 + row), p.TopKLogitsWarper(row + 3)] for row in range(4)]
    recipes[2].pop()
    steps = stack(recipes).steps
    assert [type(step) for step in steps] == [Everywhere, Everywhere]
    assert steps[0].processor.temperature.tolist() == [[0.5], [1.5], [2.5], [3.5]]
    assert steps[1].processor.top_k.tolist() == [[3], [4], [0], [6]]


def test_equal_numbers_stay_one_number():
    steps = stack([[p.TemperatureLogitsWarper(0.5)] for _ in range(3)]).steps
    assert steps[0].processor.temperature == 0.5


def test_what_cannot_stack_runs_on_its_rows_only():
    mine = Mine(3)
    steps = stack([[mine], [], [mine], [p.LogitNormalization()]]).steps
    assert [type(step) for step in steps] == [Partial, Masked]
    assert steps[0].rows.tolist() == [0, 2]


def test_a_subclass_that_adds_to_a_processor_is_not_stacked():
    class Louder(p.TemperatureLogitsWarper):
        def __init__(self, temperature, volume):
            super().__init__(temperature)
            self.volume = volume

        def process(self, scores, context):
            return super().process(scores, context) + self.volume

    recipes = [p.LogitsProcessorList([Louder(1.0 + row, 10 * row)]) for row in range(3)]
    assert_rows_are_independent(reference, recipes, exact=True)


def test_no_processors_leave_the_scores_alone(xp):
    scores, context = ragged(xp, 2)
    assert stack([[], []])(scores, context) is scores


@pytest.mark.parametrize("kind", range(len(CHOICES)))
def test_not_a_bit_depends_on_the_other_rows(xp, kind):
    generator = np.random.default_rng(kind)
    scores = generator.normal(0, 3, (5, 3001)).astype(np.float32)
    scores[1, 100:] = -np.inf
    context = ragged(xp, 5)[1]
    process = CHOICES[kind](1)
    together = xp.to_host(stack([[process]] * 5)(xp.asarray(scores, "float32"), context))
    for row in range(5):
        index = xp.asarray([row], "int32")
        alone = xp.to_host(stack([[process]])(xp.asarray(scores[row : row + 1], "float32"), select(context, index)))
        assert np.array_equal(alone[0], together[row])
