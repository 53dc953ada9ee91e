"""Beam sampling draws candidates without replacement, from the distribution that transformers draws from."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch

from fabula.decoding.beam_candidates import best_candidates, drawn_candidates
from fabula.decoding.beam_search import BeamSearch
from fabula.decoding.strategy import Draw
from fabula.processors import TemperatureLogitsWarper, TopKLogitsWarper
from tests.decoding.beam_tables import table_logits, table_model
from tests.decoding.searching import drive

UNLIKELY = 4.5  # standard deviations: once in 100,000


def draws(groups: int, seed: int = 3) -> Draw:
    return Draw.of([seed] * groups, list(range(groups)), [7] * groups, [True] * groups)


def numpy_logits(seed: int, vocabulary: int):
    logits = table_logits(seed, vocabulary)
    return lambda rows: logits(rows).numpy()


def chances_of_pairs(probabilities: np.ndarray) -> dict[tuple[int, int], float]:
    """What the first two draws without replacement are, and how often."""
    pairs = permutations(range(len(probabilities)), 2)
    return {(a, b): probabilities[a] * probabilities[b] / (1 - probabilities[a]) for a, b in pairs}


def test_draws_are_without_replacement_over_all_beams(xp):
    groups, beams, vocabulary = 5_000, 2, 3
    scores = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], np.float32))
    running = np.array([-0.2, -1.0], np.float32)
    wide = xp.asarray(np.broadcast_to(scores, (groups, beams, vocabulary)).copy(), "float32")
    kept = drawn_candidates(xp, wide, xp.asarray(np.tile(running, (groups, 1)), "float32"), 4, draws(groups))
    values, rows, tokens = (xp.to_host(part) for part in kept)
    places = rows * vocabulary + tokens
    assert all(len(set(row)) == 4 for row in places.tolist())
    total = (scores + running[:, None]).ravel()
    np.testing.assert_allclose(values, total[places], rtol=1e-6)
    weights = np.exp(total) / np.exp(total).sum()
    expected = chances_of_pairs(weights)
    counts = Counter(map(tuple, places[:, :2].tolist()))
    statistic = sum((counts[pair] - groups * chance) ** 2 / (groups * chance) for pair, chance in expected.items())
    freedom = len(expected) - 1
    assert abs(statistic - freedom) < UNLIKELY * np.sqrt(2 * freedom)


def test_a_draw_depends_on_its_own_group_only(xp):
    generator = np.random.default_rng(0)
    scores = generator.standard_normal((3, 2, 9)).astype(np.float32)
    running = np.zeros((3, 2), np.float32)

    def kept(groups):
        draw = draws(3).select(np.array(groups))
        wide, beams = (xp.asarray(part[groups], "float32") for part in (scores, running))
        parts = drawn_candidates(xp, wide, beams, 4, draw)
        return [xp.to_host(part) for part in parts]

    for together, alone in zip(kept([0, 1, 2]), kept([1]), strict=True):
        np.testing.assert_array_equal(together[1:2], alone)


def test_the_best_candidates_are_those_of_a_full_sort(xp):
    generator = np.random.default_rng(1)
    scores = generator.standard_normal((4, 3, 50)).astype(np.float32)
    running = generator.standard_normal((4, 3)).astype(np.float32)
    kept = best_candidates(xp, xp.asarray(scores, "float32"), xp.asarray(running, "float32"), 6)
    values, rows, tokens = (xp.to_host(part) for part in kept)
    total = (scores + running[:, :, None]).reshape(4, -1)
    order = np.argsort(-total, axis=-1, kind="stable")[:, :6]
    np.testing.assert_array_equal(rows * 50 + tokens, order)
    np.testing.assert_array_equal(values, np.take_along_axis(total, order, axis=-1))


def test_one_row_stands_for_all_beams_at_first(xp):
    scores = np.log(np.array([[[0.5, 0.3, 0.2]]], np.float32))
    running = np.array([[0, -1e9]], np.float32)
    kept = best_candidates(xp, xp.asarray(scores, "float32"), xp.asarray(running, "float32"), 4)
    _, rows, tokens = (xp.to_host(part)[0].tolist() for part in kept)
    assert (rows, tokens[:3]) == ([0, 0, 0, 1], [0, 1, 2])


def test_whole_searches_have_the_distribution_of_transformers():
    pytest.importorskip("transformers")
    vocabulary, beams, length, count = 4, 2, 2, 800
    model = table_model(0, vocabulary)
    torch.manual_seed(0)
    prompts = torch.zeros((count, 1), dtype=torch.int64)
    theirs = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        num_beams=beams,
        do_sample=True,
        top_k=0,
        temperature=3.0,
        max_new_tokens=length,
        eos_token_id=1,
        pad_token_id=3,
        use_cache=False,
    )[:, 1:]
    logits, ours, chain = numpy_logits(0, vocabulary), [], [TemperatureLogitsWarper(3.0)]
    for seed in range(count):
        search = BeamSearch(beams, end_tokens=1)
        done = drive(search, logits, [0], max_new=length, eos=[1], processors=chain, seed=seed)
        text = done.results[0].tokens.tolist()
        ours.append(tuple(text + [3] * (length - len(text))))
    first, second = Counter(ours), Counter(map(tuple, theirs.tolist()))
    kinds = [kind for kind in first | second if first[kind] + second[kind] >= 10]
    statistic = sum((first[kind] - second[kind]) ** 2 / (first[kind] + second[kind]) for kind in kinds)
    freedom = len(kinds) - 1
    assert freedom >= 5
    assert statistic - freedom < UNLIKELY * np.sqrt(2 * freedom)


def test_a_seed_fixes_the_text_and_another_gives_another():
    logits = numpy_logits(2, 30)
    texts = [drive(BeamSearch(3), logits, [4], max_new=12, seed=seed).results[0].tokens.tolist() for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_too_few_tokens_to_draw_from_still_fill_the_beams():
    done = drive(
        BeamSearch(4, results=4), numpy_logits(2, 30), [4], max_new=5, processors=[TopKLogitsWarper(2)], seed=0
    )
    assert len(done.results) == 4
    logits = table_logits(2, 30)
    for one in done.results[:1]:
        row = [4]
        for token in one.tokens.tolist():
            assert token in logits(np.array([row])).topk(2).indices
            row.append(token)
