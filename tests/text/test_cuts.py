"""Cuts of tokens into tokens: found by hashes as one by one, and a hash that misleads does no harm."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as some

from fabula.text.cuts import _Vocabulary, every_cut, one_by_one
from fabula.text.tokenizer import Tokenizer

TOKENS = ["a", "b", "ab", "ba", "aba", "abab", "", "é", "éa", "\U0001f600", "a\U0001f600", "aba"]


@given(some.lists(some.text("ab\U0001f600", max_size=6), max_size=40), some.randoms())
def test_hashes_find_every_cut_in_order(tokens, random):
    order = np.array(random.sample(range(len(tokens)), len(tokens) // 2), np.int64)
    assert every_cut(tokens, order) == one_by_one(tokens, order)


def test_numbers_that_share_a_place_are_told_apart():
    generator = np.random.default_rng(0)
    crowded = generator.integers(1, 1 << 44, 3000, np.uint64)  # four places for all
    members = np.unique(crowded[:1000])
    found = _Vocabulary(members).find(crowded)
    assert np.array_equal(found >= 0, np.isin(crowded, members))
    assert np.array_equal(members[found[found >= 0]], crowded[found >= 0])


def test_the_longest_left_part_comes_first():
    order = np.array([5, 4])
    assert every_cut(TOKENS, order) == [("aba", "b"), ("ab", "ab"), ("ab", "a"), ("a", "ba")]
    assert one_by_one(TOKENS, order) == every_cut(TOKENS, order)


@given(some.lists(some.text("abx", max_size=5), max_size=30, unique=True))
def test_a_hash_that_misleads_does_no_harm(words):
    """Multiplier 1: a hash is a sum of letters, so that words of the same letters have the same."""
    order = np.arange(len(words))
    assert every_cut(words, order, multiplier=1) == one_by_one(words, order)


def test_a_real_vocabulary_is_cut_as_one_by_one(gemma: Tokenizer):
    tokens = list(gemma.get_vocab())
    order = np.arange(0, len(tokens), 9)
    found = every_cut(tokens, order)
    assert len(found) > 50_000 and found == one_by_one(tokens, order)
