"""The sampler's fast path draws what the processors and the keyed noise over arrays draw."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fabula.arrays import numpy as xp
from fabula.arrays.random import gumbel, split_seed, token_uniforms
from fabula.context import Context
from fabula.kernels import sampling
from fabula.kernels.compiled import ThreadPool
from fabula.kernels.library import load_library
from fabula.kernels.sampling import RowChoice, sample_tokens
from fabula.processors.penalties import RepetitionPenaltyLogitsProcessor
from fabula.processors.temperature import TemperatureLogitsWarper
from fabula.processors.truncation import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

LIBRARY = load_library()
ISAS = () if LIBRARY is None else LIBRARY.isas
pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")


@pytest.fixture(params=ISAS, scope="module")
def pool(request):
    library = load_library()
    assert library is not None
    library.set_isa(request.param)
    return ThreadPool(library, 2)


def over_arrays(logits: np.ndarray, row: RowChoice) -> int:
    """The same choice by the array functions."""
    tokens = np.zeros(0, np.int32) if row.tokens is None else row.tokens
    lengths = np.array([len(tokens)], np.int32)
    context, scores = Context(tokens[None], lengths, lengths), logits[None]
    if row.repetition_penalty != 1.0:
        scores = RepetitionPenaltyLogitsProcessor(row.repetition_penalty).process(scores, context)
    if row.temperature == 0.0:
        return int(np.argmax(scores))
    scores = TemperatureLogitsWarper(row.temperature).process(scores, context)
    if row.top_k:
        scores = TopKLogitsWarper(row.top_k).process(scores, context)
    if row.tail >= 0.0:
        scores = TopPLogitsWarper(1 - row.tail).process(scores, context)
    if row.min_p > 0.0:
        scores = MinPLogitsWarper(row.min_p).process(scores, context)
    candidates, values = xp.survivors(scores)
    seed = tuple(np.array([word], np.int32) for word in split_seed(row.seed))
    stream, position = (np.array([each], np.int32) for each in (row.stream, row.position))
    return int(candidates[0, np.argmax(values + gumbel(xp, seed, stream, position, candidates))])


def random_rows(count: int, seed: int) -> list[RowChoice]:
    random = np.random.default_rng(seed)
    choices = itertools.cycle(
        itertools.product((0.0, 0.7, 1.0, 1.9), (0, 1, 5, 50, 4000), (1.0, 0.9, 0.3), (0.0, 0.1), (1.0, 1.3))
    )
    return [
        RowChoice(
            penalty, temperature, top_k, 1 - top_p if top_p < 1 else -1.0, min_p,
            seed=int(random.integers(0, 1 << 63)) * 2 + 1, stream=int(random.integers(0, 9)),
            position=int(random.integers(0, 5000)), tokens=random.integers(0, 3000, 40).astype(np.int32),
        )
        for _, (temperature, top_k, top_p, min_p, penalty) in zip(range(count), choices, strict=False)
    ]  # fmt: skip


@pytest.mark.parametrize(("vocabulary", "spread"), [(3000, 3.0), (3000, 0.2), (1031, 8.0), (64, 1.0), (20011, 2.0)])
def test_choices_equal_those_over_arrays(pool, vocabulary, spread):
    rows = random_rows(240, vocabulary)
    logits = (np.random.default_rng(2).standard_normal((240, vocabulary)) * spread).astype(np.float32)
    expected = [over_arrays(*pair) for pair in zip(logits, rows, strict=True)]
    assert sample_tokens(pool, logits, rows).tolist() == expected


def test_equal_scores_at_the_kth_place_are_all_kept_and_the_first_maximum_wins(pool):
    logits = np.repeat(np.array([[0.0, 1.0, 3.0, 3.0, 2.0]], np.float32), 400, axis=0)
    logits = np.tile(logits, (1, 40))
    rows = [RowChoice(temperature=1.0, top_k=1, position=i) for i in range(400)]
    tokens = sample_tokens(pool, logits, rows)
    assert set((tokens % 5).tolist()) == {2, 3}
    assert sample_tokens(pool, logits[:1], [RowChoice()]).tolist() == [2]


def test_draws_follow_the_softmax(pool):
    scores = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))
    rows = [RowChoice(temperature=1.0, seed=9, position=i) for i in range(20000)]
    tokens = sample_tokens(pool, np.repeat(scores[None], 20000, axis=0), rows)
    assert np.allclose(np.bincount(tokens) / 20000, np.exp(scores), atol=0.012)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_left_to_the_arrays(pool, bad):
    logits = np.zeros((2, 333), np.float32)
    logits[1, 200] = bad
    rows = [RowChoice(temperature=1.0, top_k=3), RowChoice(temperature=1.0, top_k=3)]
    assert sample_tokens(pool, logits, rows).tolist()[1] == -1


@pytest.mark.parametrize("count", [0, 1, 15, 16, 1031])
@pytest.mark.parametrize("shared", [False, True])
def test_uniforms_are_those_over_arrays_bit_for_bit(pool, count, shared):
    random = np.random.default_rng(count)
    low, high, position = (random.integers(-(2**31), 2**31, 5).astype(np.int32) for _ in range(3))
    tokens = random.integers(0, 2**31, (1 if shared else 5, count)).astype(np.int32)
    expected = token_uniforms((low, high), position, tokens)
    got = sampling.token_uniforms(pool.library, (low, high), position, tokens)
    assert got.shape == (5, count) and got.dtype == np.float32
    assert np.array_equal(got.view(np.int32), expected.view(np.int32))


def test_uniforms_of_tokens_that_lie_elsewhere_are_the_same(pool):
    key, position = (np.arange(8, dtype=np.int32)[::2], np.arange(4, dtype=np.int32)), np.arange(4, dtype=np.int32)
    every = np.arange(1000, dtype=np.int32)
    expected = token_uniforms(key, position, every[None])
    for tokens in (np.broadcast_to(every, (4, 1000)), np.stack([every] * 4, axis=1).T, every[None].astype(np.int64)):
        assert np.array_equal(sampling.token_uniforms(pool.library, key, position, tokens), expected)
