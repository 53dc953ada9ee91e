"""SynthID's g-values, masks and scores are transformers', over whole texts; nothing but the row itself decides them."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.context import Context
from fabula.errors import ArgumentError
from fabula.processors.rows import stack
from fabula.watermark.synthid import LOWEST, SynthIDTextWatermarkLogitsProcessor

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("transformers").generation.logits_process

USUAL = {
    "ngram_len": 5,
    "keys": [654, 400, 836, 123, 340, 443, 597, 160, 57, 2**62 + 9],
    "sampling_table_size": 2**16,
    "sampling_table_seed": 0,
    "context_history_size": 1024,
}
SETTINGS = [
    {},
    {"ngram_len": 2, "context_history_size": 3},
    {"ngram_len": 1},
    {"sampling_table_size": 1000, "sampling_table_seed": 5},
    {"skip_first_ngram_calls": True, "ngram_len": 4},
    {"skip_first_ngram_calls": True, "ngram_len": 2, "context_history_size": 2},
    {"debug_mode": True, "keys": [1, 2, 3]},
    {"keys": list(range(30))},
]


def both(settings):
    arguments = {**USUAL, **settings}
    mine = SynthIDTextWatermarkLogitsProcessor(**arguments, device="cpu")
    return mine, theirs.SynthIDTextWatermarkLogitsProcessor(**arguments, device="cpu")


def scores_of(rows, vocabulary, seed, holes=False):
    scores = np.random.default_rng(seed).normal(0, 2, (rows, vocabulary)).astype(np.float32)
    if holes:
        scores[:, 1::3] = -np.inf
        scores[0, 2::3] = -np.inf  # so that rows differ in how many tokens are left
    return scores


def text(rows, length, vocabulary=9, seed=0):
    """Few different tokens, so that contexts repeat."""
    return np.random.default_rng(seed).integers(0, vocabulary, (rows, length))


def ragged(xp, tokens, prompts, step):
    """The rows after `step` new tokens, of prompts of different lengths, all starting at column 0."""
    longest = max(prompts) + step
    rows = np.full((len(tokens), longest + 2), 77)
    for row, prompt in enumerate(prompts):
        rows[row, :prompt] = 5
        rows[row, prompt : prompt + step] = tokens[row, :step]
    lengths = [prompt + step for prompt in prompts]
    return Context(*(xp.asarray(part, "int32") for part in (rows, lengths, prompts)))


@pytest.mark.parametrize("settings", SETTINGS)
def test_scores_over_a_whole_generation_equal_transformers(xp, settings):
    """As logarithms where transformers computes in float64; as chances in float32, in which it loses unlikely ones."""
    mine, other = both(settings)
    calls, rounded = both(settings)
    new, prompts = text(3, 30), [4, 9, 1]
    marked = 0
    for step in range(30):
        scores = scores_of(3, 50, step, holes=step % 2 == 1)
        shown = np.concatenate([text(3, 6), new[:, :step]], axis=1)
        expected = np.maximum(other(torch.tensor(shown), torch.tensor(scores, dtype=torch.float64)).numpy(), LOWEST)
        called = xp.to_host(calls(xp.asarray(shown, "int64"), xp.asarray(scores, "float32")))
        likely = expected > -30  # below, float64 has no digits left either
        np.testing.assert_allclose(called[likely], expected[likely], rtol=1e-5, atol=1e-5)
        assert (called[~likely] < -29).all()
        in_float32 = rounded(torch.tensor(shown), torch.tensor(scores)).numpy()
        np.testing.assert_allclose(np.exp(called), np.exp(in_float32), rtol=1e-5, atol=1e-5)
        assert np.array_equal(np.isneginf(called), np.isneginf(in_float32))
        given = xp.asarray(scores.copy(), "float32")
        got = xp.to_host(mine.process(given, ragged(xp, new, prompts, step)))
        assert np.array_equal(np.maximum(got, LOWEST), np.maximum(called, LOWEST))
        assert np.array_equal(xp.to_host(given), scores), "the scores that came in have changed"
        marked += int((np.abs(np.maximum(got, -1e3) - np.maximum(scores, -1e3)) > 1e-3).any(axis=-1).sum())
    assert marked > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_scores_keep_their_type(dtype):
    mine, other = both({})
    scores = torch.tensor(scores_of(3, 50, 0, holes=True)).to(getattr(torch, dtype))
    got, expected = mine(torch.tensor(text(3, 6)), scores), other(torch.tensor(text(3, 6)), scores)
    assert got.dtype == expected.dtype == scores.dtype
    torch.testing.assert_close(got.double().exp(), expected.double().exp(), rtol=0.02, atol=0.02)
    assert bool((got.double().exp()[expected.double() < -1e4] < 1e-6).all())
    assert bool(torch.isfinite(got).all())


@pytest.mark.parametrize("settings", [one for one in SETTINGS if one.get("ngram_len") != 1])  # no windows of no tokens
@pytest.mark.parametrize("vocabulary", [9, 50_000])
def test_g_values_and_masks_of_texts_equal_transformers(xp, settings, vocabulary):
    mine, other = both(settings)
    ids = text(4, 50, vocabulary)
    given = xp.asarray(ids, "int64")
    assert np.array_equal(mine.sampling_table, other.sampling_table.numpy())
    assert np.array_equal(xp.to_host(mine.compute_g_values(given)), other.compute_g_values(torch.tensor(ids)).numpy())
    got = xp.to_host(mine.compute_context_repetition_mask(given))
    assert np.array_equal(got, other.compute_context_repetition_mask(torch.tensor(ids)).numpy())
    got = xp.to_host(mine.compute_eos_token_mask(given, 3))
    assert np.array_equal(got, other.compute_eos_token_mask(torch.tensor(ids), 3).numpy())


def test_parts_that_people_call_equal_transformers(xp):
    mine, other = both({})
    ngrams = np.random.default_rng(0).integers(0, 50_000, (2, 7, 5))
    keys = other.compute_ngram_keys(torch.tensor(ngrams))
    got = mine.compute_ngram_keys(xp.asarray(ngrams, "int64"))
    assert np.array_equal(xp.to_host(got), keys.numpy())
    g_values = other.sample_g_values(keys)
    assert np.array_equal(xp.to_host(mine.sample_g_values(got)), g_values.numpy())
    scores = scores_of(2, 7, 0)
    expected = other.update_scores(torch.tensor(scores), g_values).numpy()
    updated = mine.update_scores(xp.asarray(scores, "float32"), xp.asarray(g_values.numpy(), "int64"))
    np.testing.assert_allclose(xp.to_host(updated), expected, rtol=1e-5, atol=1e-5)
    assert mine.expected_mean_g_value(1000, 0.3) == other.expected_mean_g_value(1000, 0.3)


def test_a_row_is_marked_alike_alone_and_in_any_batch(xp):
    mine, _ = both({})
    new, prompts = text(3, 30), [4, 9, 1]
    scores = scores_of(3, 500, 1, holes=True)
    together = xp.to_host(mine.process(xp.asarray(scores, "float32"), ragged(xp, new, prompts, 20)))
    for row in range(3):
        context = ragged(xp, new[row : row + 1], prompts[row : row + 1], 20)
        alone = xp.to_host(mine.process(xp.asarray(scores[row : row + 1], "float32"), context))
        assert np.array_equal(alone[0], together[row])


def test_rows_with_and_without_the_mark_share_a_batch(xp):
    mine, _ = both({})
    twin, _ = both({})
    new, prompts = text(3, 30), [4, 9, 1]
    scores, context = xp.asarray(scores_of(3, 50, 1), "float32"), ragged(xp, new, prompts, 7)
    got = xp.to_host(stack([[mine], [], [twin]])(scores, context))
    everything = xp.to_host(mine.process(scores, context))
    assert np.array_equal(got[[0, 2]], everything[[0, 2]])
    assert np.array_equal(got[1], xp.to_host(scores)[1])


def test_over_many_contexts_a_token_keeps_the_chance_that_the_model_gave_it(xp):
    rows = 4000
    mine, _ = both({"keys": list(range(20))})
    scores = np.repeat(scores_of(1, 8, 0), rows, axis=0)
    context = ragged(xp, text(rows, 4, 50_000), [1] * rows, 4)
    marked = np.exp(xp.to_host(mine.process(xp.asarray(scores, "float32"), context)).astype(np.float64))
    np.testing.assert_allclose(marked.sum(axis=-1), 1, atol=1e-5)
    chances = np.exp(scores[0]) / np.exp(scores[0]).sum()
    assert (np.abs(marked.mean(axis=0) - chances) < 4.5 * np.sqrt(chances * (1 - chances) / rows)).all()
    assert (marked.max(axis=-1) > chances.max() + 0.1).mean() > 0.5  # though in each context some token is favoured


def test_calls_with_another_number_of_rows_begin_another_generation(xp):
    mine, _ = both({})
    scores = xp.asarray(scores_of(2, 50, 1), "float32")
    first = xp.to_host(mine(xp.asarray([[1], [2]], "int64"), scores))
    mine(xp.asarray([[1, 8], [2, 8]], "int64"), scores)
    mine(xp.asarray([[1]], "int64"), scores[:1])
    assert np.array_equal(xp.to_host(mine(xp.asarray([[1], [2]], "int64"), scores)), first)


def test_a_mass_that_is_rounded_to_one_leaves_numbers(xp):
    mine, _ = both({"keys": list(range(30))})
    scores = np.zeros((1, 50), dtype=np.float32)
    for token in range(50):
        steep = scores.copy()
        steep[0, token] = 60.0
        got = xp.to_host(mine.process(xp.asarray(steep, "float32"), ragged(xp, text(1, 5), [2], 5)))
        assert not np.isnan(got).any()
        assert got[0, token] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ngram_len": 0}, "ngram_len"),
        ({"keys": []}, "keys"),
        ({"keys": [-1]}, "keys"),
        ({"sampling_table_size": 2**24 + 1}, "sampling_table_size"),
        ({"context_history_size": 0}, "context_history_size"),
    ],
)
def test_values_out_of_range_are_refused_by_name(settings, named):
    with pytest.raises(ArgumentError, match=named):
        both(settings)


def test_ids_that_are_no_rows_of_texts_are_refused(xp):
    mine, _ = both({})
    with pytest.raises(ArgumentError, match="input_ids"):
        mine(xp.asarray([1, 2], "int64"), xp.asarray([[1.0]], "float32"))
    with pytest.raises(ArgumentError, match="ngrams"):
        mine.compute_ngram_keys(xp.asarray([[[1, 2]]], "int64"))
    with pytest.raises(ArgumentError, match="input_ids"):
        mine.compute_g_values(xp.asarray([1, 2, 3, 4, 5, 6], "int64"))
