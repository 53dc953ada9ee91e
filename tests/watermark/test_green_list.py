"""The green lists and the scores are transformers', by both schemes, for rows alone, in batches and ragged."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from fabula.context import Context
from fabula.errors import ArgumentError
from fabula.watermark.green_list import WatermarkLogitsProcessor

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("transformers").generation.logits_process

SETTINGS = [
    {},
    {"greenlist_ratio": 0.5, "bias": 1.0, "hashing_key": 99991},
    {"seeding_scheme": "selfhash"},
    {"seeding_scheme": "selfhash", "context_width": 3, "greenlist_ratio": 0.4},
    {"seeding_scheme": "selfhash", "context_width": 5, "hashing_key": 7, "bias": -1.5},
    {"context_width": 4},
    {"hashing_key": 2**62 + 12345},
    {"hashing_key": 2**62 + 12345, "seeding_scheme": "selfhash", "context_width": 2},
    {"hashing_key": -5, "seeding_scheme": "selfhash", "context_width": 2},
]


def scores_of(rows, vocabulary, seed=0):
    scores = np.random.default_rng(seed).normal(0, 3, (rows, vocabulary)).astype(np.float32)
    scores[:, ::7] = -np.inf
    return scores


def ids_of(rows, length, vocabulary, seed=0):
    return np.random.default_rng(seed).integers(0, vocabulary, (rows, length))


def reference(vocabulary, settings):
    return theirs.WatermarkLogitsProcessor(vocabulary, "cpu", **settings)


@pytest.mark.parametrize(
    ("settings", "vocabulary"),
    [(one, 50) for one in SETTINGS] + [(one, 1000) for one in SETTINGS] + [(one, 49152) for one in SETTINGS[:4:3]],
)
def test_scores_equal_transformers(xp, settings, vocabulary):
    rows = 3 if vocabulary < 2000 else 1
    input_ids, scores = ids_of(rows, 9, vocabulary), scores_of(rows, vocabulary)
    expected = reference(vocabulary, settings)(torch.tensor(input_ids), torch.tensor(scores)).numpy()
    given = xp.asarray(scores.copy(), "float32")
    got = xp.to_host(WatermarkLogitsProcessor(vocabulary, "cpu", **settings)(xp.asarray(input_ids, "int64"), given))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert np.array_equal(xp.to_host(given), scores), "the scores that came in have changed"
    assert not np.array_equal(got, scores)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("settings", SETTINGS[:4])
def test_scores_keep_their_type(settings, dtype):
    input_ids = torch.tensor(ids_of(3, 9, 50))
    scores = torch.tensor(scores_of(3, 50)).to(getattr(torch, dtype))
    got = WatermarkLogitsProcessor(50, "cpu", **settings)(input_ids, scores)
    assert got.dtype == scores.dtype
    torch.testing.assert_close(got, reference(50, settings)(input_ids, scores))


@pytest.mark.parametrize("key", [15485863, 1, 99991, 2**40 + 3])
def test_a_key_has_the_lists_of_transformers(key):
    mine, other = WatermarkLogitsProcessor(4000, hashing_key=key).lists(4000), reference(4000, {"hashing_key": key})
    for token in (0, 1, 17, 3999):
        expected = other._get_greenlist_ids(torch.tensor([5, token]))
        assert np.array_equal(np.flatnonzero(mine.greens_after(token)), np.sort(expected.numpy()))


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("key", [15485863, 2**62 + 1])
def test_a_candidate_is_in_its_own_list_as_in_transformers(width, key):
    settings = {"seeding_scheme": "selfhash", "context_width": width, "hashing_key": key}
    lists, other = WatermarkLogitsProcessor(700, **settings).lists(700), reference(700, settings)
    ngrams = ids_of(60, width, 700, seed=width)
    expected = [int(ngram[-1]) in other._get_greenlist_ids(torch.tensor(ngram)) for ngram in ngrams]
    assert lists.in_their_own(ngrams[:, :-1], ngrams[:, -1:])[:, 0].tolist() == expected
    assert 0 < sum(expected) < 60


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_row_of_a_ragged_batch_has_the_scores_of_the_row_alone(xp, settings):
    lengths = [12, 1, 5, 3]
    tokens, scores = ids_of(4, 12, 300), scores_of(4, 300)
    counts = xp.asarray(lengths, "int32")
    context = Context(xp.asarray(tokens, "int32"), counts, counts)
    processor = WatermarkLogitsProcessor(None, **settings)
    got = xp.to_host(processor.process(xp.asarray(scores, "float32"), context))
    for row, length in enumerate(lengths):
        expected = reference(300, settings)(torch.tensor(tokens[row : row + 1, :length]), torch.tensor(scores[[row]]))
        np.testing.assert_allclose(got[row], expected[0].numpy(), rtol=1e-5, atol=1e-5)


def test_a_row_shorter_than_the_context_is_not_marked_and_said_so(xp, caplog):
    scores = xp.asarray(scores_of(1, 60), "float32")
    with caplog.at_level(logging.WARNING, "fabula.watermark"):
        got = WatermarkLogitsProcessor(60, context_width=4)(xp.asarray([[1, 2]], "int64"), scores)
    assert np.array_equal(xp.to_host(got), xp.to_host(scores))
    assert "should have at least `4` tokens but has 2" in caplog.text


def test_a_vocabulary_of_fewer_tokens_than_candidates_is_marked(xp):
    scores = scores_of(1, 10)
    got = WatermarkLogitsProcessor(10, seeding_scheme="selfhash")(
        xp.asarray([[1]], "int64"), xp.asarray(scores, "float32")
    )
    raised = np.flatnonzero(xp.to_host(got)[0] > scores[0])
    own = WatermarkLogitsProcessor(10, seeding_scheme="selfhash").lists(10)
    finite = np.flatnonzero(np.isfinite(scores[0]))[None]
    assert raised.tolist() == finite[own.in_their_own(np.zeros((1, 0), int), finite)].tolist()


def test_scores_may_be_wider_than_the_vocabulary(xp):
    settings = {"greenlist_ratio": 0.5}
    input_ids, scores = ids_of(2, 4, 90), scores_of(2, 100)
    expected = reference(90, settings)(torch.tensor(input_ids), torch.tensor(scores)).numpy()
    got = WatermarkLogitsProcessor(90, **settings)(xp.asarray(input_ids, "int64"), xp.asarray(scores, "float32"))
    np.testing.assert_allclose(xp.to_host(got), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"greenlist_ratio": 0.0}, "greenlist_ratio"),
        ({"greenlist_ratio": 1.0}, "greenlist_ratio"),
        ({"seeding_scheme": "righthash"}, "seeding_scheme"),
        ({"context_width": 0}, "context_width"),
        ({"vocab_size": 2**32}, "vocab_size"),
    ],
)
def test_values_out_of_range_are_refused_by_name(settings, named):
    with pytest.raises(ArgumentError, match=named):
        WatermarkLogitsProcessor(**{"vocab_size": 50, **settings})
