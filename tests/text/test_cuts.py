"""Cuts of tokens into tokens: found by hashes as one by one, and a hash that misleads does no harm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from fabula.text import sentencepiece
from fabula.text.cuts import _HashSet, every_cut, likely_cuts
from fabula.text.gguf_vocabulary import read_vocabulary
from fabula.text.tokenizer import Tokenizer

TOKENS = ["a", "b", "ab", "ba", "aba", "abab", "", "é", "éa", "\U0001f600", "a\U0001f600", "aba"]


@given(some.lists(some.text("ab\U0001f600", max_size=6), max_size=40), some.randoms())
def test_hashes_find_every_cut_in_order(tokens, random):
    order = np.array(random.sample(range(len(tokens)), len(tokens) // 2), np.int64)
    assert likely_cuts(tokens, order) == every_cut(tokens, order)


def test_numbers_that_share_a_place_are_told_apart():
    generator = np.random.default_rng(0)
    crowded = generator.integers(1, 1 << 44, 3000, np.uint64)  # four places for all
    members = _HashSet(crowded[:1000])
    assert np.array_equal(members.holds(crowded), np.isin(crowded, crowded[:1000]))
    assert not _HashSet(crowded[:0]).holds(crowded).any()


def test_the_longest_left_part_comes_first():
    order = np.array([5, 4])
    assert every_cut(TOKENS, order) == [("aba", "b"), ("ab", "ab"), ("ab", "a"), ("a", "ba")]
    assert likely_cuts(TOKENS, order) == every_cut(TOKENS, order)


def test_hashes_may_find_too_much_and_never_too_little():
    """Multiplier 1: a hash is a sum of letters, so that words of the same letters have the same."""
    order = np.arange(len(TOKENS))
    assert set(every_cut(TOKENS, order)) <= set(likely_cuts(TOKENS, order, multiplier=1))
    words = ["ab", "x", "bax", "abx"]  # "ba" is none
    assert ("ba", "x") in likely_cuts(words, np.arange(4), multiplier=1)


def test_a_part_that_is_no_token_is_noticed(monkeypatch: pytest.MonkeyPatch):
    words = ["a", "b", "x", "ab", "abx", "bax"]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.scores": [-float(place) for place in range(len(words))],
        "tokenizer.ggml.add_space_prefix": False,
    }
    expected = read_vocabulary(metadata, "a test").backend.to_str()
    tried = []

    def misled(tokens, order):
        tried.append(likely_cuts(tokens, order, multiplier=1))
        return tried[0]

    monkeypatch.setattr(sentencepiece, "likely_cuts", misled)
    assert read_vocabulary(metadata, "a test").backend.to_str() == expected
    assert ("ba", "x") in tried[0]


def test_a_real_vocabulary_is_cut_as_one_by_one(gemma: Tokenizer):
    tokens = list(gemma.get_vocab())
    order = np.arange(0, len(tokens), 9)
    found = likely_cuts(tokens, order)
    assert len(found) > 50_000 and found == every_cut(tokens, order)
