"""Lookup drafts what followed the most telling earlier occurrence, and never changes a text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula.decoding.prompt_lookup import PromptLookup, continuation
from fabula.decoding.strategy import Draftable, Drafter
from fabula.errors import ArgumentError
from fabula.processors import NoRepeatNGramLogitsProcessor
from fabula.testing.hash_model import HashModel
from tests.decoding.loop import run_drafted, run_strategy


def ids(*tokens):
    return np.array(tokens, np.int32)


def row(*tokens, most=99):
    return Draftable(0, ids(*tokens), 1, most, 0, 0)


@pytest.mark.parametrize(
    ("tokens", "largest", "count", "expected"),
    [
        ([1, 2, 3, 4, 1, 2], 2, 10, [3, 4, 1, 2, 3, 4, 1, 2, 3, 4]),  # longer than what is left to copy: once more
        ([1, 2, 3, 4, 1, 2], 2, 1, [3]),
        ([9, 2, 3, 4, 1, 2], 2, 2, [3, 4]),  # no pair: a single token
        ([1, 2, 3, 4], 3, 5, []),
        ([7], 2, 5, []),
        ([], 2, 5, []),
        ([5] * 40, 2, 9, [5] * 9),
        ([8, 1, 2, 3, 9, 1, 2, 4, 0, 9, 1, 2], 2, 1, [4]),  # the pair that 9 came before, as now
        ([1, 2, 3, 0, 6, 1, 2, 4, 0, 7, 1, 2], 2, 1, [4]),  # nothing tells them apart: the later one
        ([1, 2, 3, 4, 1, 2], 2, 0, []),
    ],
)
def test_a_draft_is_what_followed(tokens, largest, count, expected):
    assert continuation(ids(*tokens), largest, count).tolist() == expected


def test_drafts_are_no_longer_than_can_be_used_and_end_with_an_end_token():
    lookup: Drafter = PromptLookup(4, 2, frozenset({6}))
    first, second, third = lookup.propose(
        [row(1, 2, 3, 4, 5, 7, 1, 2), row(1, 2, 3, 4, 5, 7, 1, 2, most=2), row(1, 2, 3, 6, 5, 7, 1, 2)]
    )
    assert (first.tolist(), second.tolist(), third.tolist()) == ([3, 4, 5, 7], [3, 4], [3, 6])
    assert lookup == PromptLookup(4, 2, frozenset({6}))


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5), st.integers(0, 9))
@settings(deadline=None)
def test_a_draft_always_follows_the_longest_ngram_that_occurs_before(tokens, largest, count):
    draft = continuation(ids(*tokens), largest, count).tolist()
    size = next(
        (
            n
            for n in range(min(largest, len(tokens) - 1), 0, -1)
            if any(tokens[i : i + n] == tokens[-n:] for i in range(len(tokens) - n))
        ),
        0,
    )
    assert len(draft) == (count if size else 0)
    if draft:
        found = [i + size for i in range(len(tokens) - size) if tokens[i : i + size] == tokens[-size:]]
        assert any((tokens + draft)[start : start + count] == draft for start in found)


class Cyclic(HashModel):
    """A model whose likeliest token repeats what came three tokens before, now and then."""

    def next_logits(self, tokens):
        logits = super().next_logits(tokens)
        if len(tokens) >= 3 and (len(tokens) % 7):
            logits[tokens[-3]] += 6
        return logits


@pytest.mark.parametrize("sampled", [False, True])
def test_texts_are_those_without_drafts_and_take_fewer_passes(sampled):
    prompts = [[1, 2, 3], [4, 5, 6, 4, 5], [7]]
    chain = [NoRepeatNGramLogitsProcessor(6)]
    expected, _ = run_strategy(Cyclic(), prompts, 40, processors=chain, sampled=sampled, seed=5)
    rows, passes, stood = run_drafted(Cyclic(), prompts, 40, PromptLookup(6), processors=chain, sampled=sampled, seed=5)
    assert rows == expected
    assert stood > 20 and passes + stood == 120


@pytest.mark.parametrize(("number", "largest"), [(0, 2), (3, 0)])
def test_numbers_below_one_are_refused(number, largest):
    with pytest.raises(ArgumentError, match="must be at least 1"):
        PromptLookup(number, largest)
