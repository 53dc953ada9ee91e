"""Every processor gives what transformers gives, on every framework, on ordinary and on extreme scores."""

from __future__ import annotations

import numpy as np
import pytest

from fabula import processors as ours

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("transformers").generation.logits_process

INFINITY = float("inf")


def random_scores(rows, vocabulary, seed=0, spread=3.0):
    return np.random.default_rng(seed).normal(0, spread, (rows, vocabulary)).astype(np.float32)


def with_holes(rows, vocabulary):
    """Scores of which a third are -inf, but none of the first column."""
    generator = np.random.default_rng(1)
    scores = random_scores(rows, vocabulary, seed=2)
    scores[generator.random(scores.shape) < 0.33] = -INFINITY
    scores[:, 0] = 1.0
    return scores


SCORES = {
    "one row": random_scores(1, 50),
    "five rows": random_scores(5, 50, seed=3),
    "a wide vocabulary": random_scores(2, 3000, seed=4),
    "a steep distribution": random_scores(3, 50, seed=5, spread=30.0),
    "one token": random_scores(2, 1, seed=6),
    "two tokens": random_scores(2, 2, seed=6),
    "all equal": np.full((2, 40), 0.5, dtype=np.float32),
    "all zero": np.zeros((2, 40), dtype=np.float32),
    "holes": with_holes(4, 60),
}

# name of the class, arguments
TRUNCATIONS = [
    ("TemperatureLogitsWarper", {"temperature": 0.7}),
    ("TemperatureLogitsWarper", {"temperature": 1.3}),
    ("TopKLogitsWarper", {"top_k": 1}),
    ("TopKLogitsWarper", {"top_k": 7}),
    ("TopKLogitsWarper", {"top_k": 10_000}),
    ("TopKLogitsWarper", {"top_k": 2, "min_tokens_to_keep": 4, "filter_value": -7.0}),
    ("TopPLogitsWarper", {"top_p": 0.0}),
    ("TopPLogitsWarper", {"top_p": 0.3}),
    ("TopPLogitsWarper", {"top_p": 0.9}),
    ("TopPLogitsWarper", {"top_p": 0.95, "min_tokens_to_keep": 3}),
    ("TopPLogitsWarper", {"top_p": 1.0}),
    ("TopPLogitsWarper", {"top_p": 0.5, "filter_value": -9.0}),
    ("MinPLogitsWarper", {"min_p": 0.0}),
    ("MinPLogitsWarper", {"min_p": 0.1}),
    ("MinPLogitsWarper", {"min_p": 0.1, "min_tokens_to_keep": 2}),
    ("MinPLogitsWarper", {"min_p": 1.0}),
    ("TypicalLogitsWarper", {"mass": 0.2}),
    ("TypicalLogitsWarper", {"mass": 0.9, "min_tokens_to_keep": 3}),
    ("EpsilonLogitsWarper", {"epsilon": 0.02}),
    ("EpsilonLogitsWarper", {"epsilon": 0.9, "min_tokens_to_keep": 2}),
    ("EtaLogitsWarper", {"epsilon": 0.02}),
    ("EtaLogitsWarper", {"epsilon": 0.3, "min_tokens_to_keep": 2}),
    ("LogitNormalization", {}),
    ("InfNanRemoveLogitsProcessor", {}),
]


def assert_equal(expected, got):
    """The same holes, and values within 1e-5 of each other."""
    assert got.dtype == np.float32
    assert np.array_equal(np.isneginf(expected), np.isneginf(got))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(got[finite], expected[finite], rtol=1e-5, atol=1e-5)


def compare(xp, name, arguments, input_ids, scores):
    """Runs both on rectangular rows, through `__call__`."""
    expected = getattr(theirs, name)(**arguments)(torch.tensor(input_ids), torch.tensor(scores)).numpy()
    ids, given = xp.asarray(input_ids, "int64"), xp.asarray(scores.copy(), "float32")
    got = xp.to_host(getattr(ours, name)(**arguments)(ids, given))
    assert_equal(expected, got)
    assert np.array_equal(xp.to_host(given), scores, equal_nan=True), "the scores that came in have changed"


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize(("name", "arguments"), TRUNCATIONS)
def test_truncation_equals_transformers(xp, name, arguments, kind):
    if kind.startswith("all") and name == "TopPLogitsWarper":
        pytest.skip("which of equally likely tokens stay is left to the sort in transformers; see the next test")
    compare(xp, name, arguments, np.zeros((len(SCORES[kind]), 3), dtype=np.int64), SCORES[kind])


@pytest.mark.parametrize("top_p", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("kind", ["all equal", "all zero"])
def test_top_p_keeps_as_many_equal_tokens_as_transformers_and_they_are_the_first(xp, kind, top_p):
    scores = SCORES[kind]
    expected = theirs.TopPLogitsWarper(top_p)(None, torch.tensor(scores)).numpy()
    got = xp.to_host(ours.TopPLogitsWarper(top_p)(xp.asarray([[0]] * 2, "int64"), xp.asarray(scores, "float32")))
    kept = np.isfinite(got)
    assert np.array_equal(kept.sum(axis=-1), np.isfinite(expected).sum(axis=-1))
    assert np.array_equal(kept, np.sort(kept, axis=-1)[:, ::-1])


@pytest.mark.parametrize("kind", [kind for kind in SCORES if not kind.startswith("all")])  # ties: any order is right
@pytest.mark.parametrize("top_h", [0.1, 0.4, 0.9, 0.99])
def test_top_h_equals_transformers(xp, kind, top_h):
    scores = SCORES[kind]
    compare(xp, "TopHLogitsWarper", {"top_h": top_h}, np.zeros((len(scores), 3), dtype=np.int64), scores)


# name, arguments, for a vocabulary of 50 (of 12 in the rows, so that they repeat)
TEXT = [
    ("RepetitionPenaltyLogitsProcessor", {"penalty": 1.3}),
    ("RepetitionPenaltyLogitsProcessor", {"penalty": 0.8, "prompt_ignore_length": 4}),
    ("NoRepeatNGramLogitsProcessor", {"ngram_size": 1}),
    ("NoRepeatNGramLogitsProcessor", {"ngram_size": 2}),
    ("NoRepeatNGramLogitsProcessor", {"ngram_size": 3}),
    ("NoRepeatNGramLogitsProcessor", {"ngram_size": 40}),
    ("MinLengthLogitsProcessor", {"min_length": 10, "eos_token_id": [3, 49]}),
    ("MinLengthLogitsProcessor", {"min_length": 30, "eos_token_id": 3}),
    ("MinNewTokensLengthLogitsProcessor", {"prompt_length_to_skip": 6, "min_new_tokens": 12, "eos_token_id": 3}),
    ("MinNewTokensLengthLogitsProcessor", {"prompt_length_to_skip": 6, "min_new_tokens": 2, "eos_token_id": [3]}),
    ("ForcedBOSTokenLogitsProcessor", {"bos_token_id": 5}),
    ("ForcedEOSTokenLogitsProcessor", {"max_length": 13, "eos_token_id": [3, 4]}),
    ("ForcedEOSTokenLogitsProcessor", {"max_length": 2, "eos_token_id": 3}),
    ("SuppressTokensLogitsProcessor", {"suppress_tokens": [0, 1, 48]}),
    ("SuppressTokensAtBeginLogitsProcessor", {"begin_suppress_tokens": [0, 9], "begin_index": 12}),
    ("SuppressTokensAtBeginLogitsProcessor", {"begin_suppress_tokens": [0, 9], "begin_index": 3}),
    (
        "ExponentialDecayLengthPenalty",
        {"exponential_decay_length_penalty": (2.5, 1.1), "eos_token_id": [3, 7], "input_ids_seq_length": 4},
    ),
    (
        "ExponentialDecayLengthPenalty",
        {"exponential_decay_length_penalty": (20, 1.1), "eos_token_id": 3, "input_ids_seq_length": 4},
    ),
    ("SequenceBiasLogitsProcessor", {"sequence_bias": {(3,): -1.5, (2, 3): 4.0, (1, 2, 3): 2.0, (7, 8): -INFINITY}}),
    ("SequenceBiasLogitsProcessor", {"sequence_bias": [[[3], 1.0], [[5, 4], -2.0], [[6, 4], 3.0], [[1] * 14, 1.0]]}),
    ("NoBadWordsLogitsProcessor", {"bad_words_ids": [[3], [2, 3], [5, 6, 7], [9, 9]], "eos_token_id": [3]}),
    ("NoBadWordsLogitsProcessor", {"bad_words_ids": [[3]]}),
]


@pytest.mark.parametrize("length", [0, 1, 2, 12])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize(("name", "arguments"), TEXT)
def test_what_looks_at_the_text_equals_transformers(xp, name, arguments, rows, length):
    input_ids = np.random.default_rng(length).integers(0, 12, (rows, length))
    compare(xp, name, arguments, input_ids, random_scores(rows, 50, seed=rows))


@pytest.mark.parametrize("name", ["EncoderRepetitionPenaltyLogitsProcessor", "EncoderNoRepeatNGramLogitsProcessor"])
@pytest.mark.parametrize("rows", [2, 6])
@pytest.mark.parametrize("length", [0, 7])
def test_what_looks_at_the_encoder_equals_transformers(xp, name, rows, length):
    encoder = np.random.default_rng(0).integers(0, 8, (2, 9))
    input_ids = np.random.default_rng(1).integers(0, 8, (rows, length))
    first = {"penalty": 1.4} if "Penalty" in name else {"encoder_ngram_size": 2}
    scores = random_scores(rows, 20)
    expected = getattr(theirs, name)(*first.values(), torch.tensor(encoder))(
        torch.tensor(input_ids), torch.tensor(scores)
    )
    processor = getattr(ours, name)(**first, encoder_input_ids=xp.asarray(encoder, "int64"))
    assert_equal(expected.numpy(), xp.to_host(processor(xp.asarray(input_ids, "int64"), xp.asarray(scores, "float32"))))


def test_a_penalty_may_ignore_another_count_in_each_row(xp):
    input_ids = np.random.default_rng(0).integers(0, 12, (3, 10))
    arguments = {"penalty": 1.5, "prompt_ignore_length": torch.tensor([0, 4, 10])}
    compare(xp, "RepetitionPenaltyLogitsProcessor", arguments, input_ids, random_scores(3, 50))


def test_tokens_outside_the_scores_are_passed_over(xp):
    input_ids = np.array([[60, 3, 55, 3]])
    compare(xp, "RepetitionPenaltyLogitsProcessor", {"penalty": 2.0}, input_ids, random_scores(1, 50))
    compare(xp, "NoRepeatNGramLogitsProcessor", {"ngram_size": 2}, input_ids, random_scores(1, 50))


@pytest.mark.parametrize("beams", [1, 2])
def test_prefix_constraints_equal_transformers(xp, beams):
    def allowed(batch, tokens):
        return [0, 1] if batch == 0 else [int(tokens[-1]), 7]

    scores = random_scores(4, 20)
    scores[1:3, :] = -INFINITY
    arguments = {"prefix_allowed_tokens_fn": allowed, "num_beams": beams}
    compare(xp, "PrefixConstrainedLogitsProcessor", arguments, np.arange(12).reshape(4, 3), scores)


def test_values_that_are_no_numbers_are_replaced_as_in_transformers(xp):
    scores = np.array([[np.nan, INFINITY, -INFINITY, 1.5]], dtype=np.float32)
    compare(xp, "InfNanRemoveLogitsProcessor", {}, np.zeros((1, 1), dtype=np.int64), scores)


def test_a_list_in_the_order_of_generate_equals_transformers(xp):
    chain = [
        ("RepetitionPenaltyLogitsProcessor", {"penalty": 1.2}),
        ("NoRepeatNGramLogitsProcessor", {"ngram_size": 2}),
        ("MinLengthLogitsProcessor", {"min_length": 30, "eos_token_id": 3}),
        ("TemperatureLogitsWarper", {"temperature": 0.8}),
        ("TopKLogitsWarper", {"top_k": 20}),
        ("TopPLogitsWarper", {"top_p": 0.8}),
        ("MinPLogitsWarper", {"min_p": 0.05}),
        ("TypicalLogitsWarper", {"mass": 0.9}),
        ("LogitNormalization", {}),
    ]
    input_ids = np.random.default_rng(0).integers(0, 12, (3, 10))
    scores = random_scores(3, 200)
    expected = theirs.LogitsProcessorList([getattr(theirs, name)(**arguments) for name, arguments in chain])
    mine = ours.LogitsProcessorList([getattr(ours, name)(**arguments) for name, arguments in chain])
    assert_equal(
        expected(torch.tensor(input_ids), torch.tensor(scores)).numpy(),
        xp.to_host(mine(xp.asarray(input_ids, "int64"), xp.asarray(scores, "float32"))),
    )
