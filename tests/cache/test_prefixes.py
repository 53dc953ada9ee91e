"""The index of prefixes finds what was added, holds no more than it may, and forgets the oldest first."""

import numpy as np

from fabula.cache.prefixes import PrefixIndex

SIZE = 4


def row(seed, blocks=3):
    return np.random.default_rng(seed).integers(0, 100, blocks * SIZE + 1).astype(np.int32)


def test_a_bound_forgets_what_was_not_used_for_longest():
    index = PrefixIndex(most=6)
    for seed, blocks in ((0, [0, 1, 2]), (1, [3, 4, 5])):
        index.add(row(seed), SIZE, blocks, b"")
    assert index.find(row(0), SIZE, b"") == [0, 1, 2]
    index.add(row(2), SIZE, [6, 7, 8], b"")
    assert len(index) == 6
    assert index.find(row(1), SIZE, b"") == []
    assert index.find(row(0), SIZE, b"") == [0, 1, 2] and index.find(row(2), SIZE, b"") == [6, 7, 8]


def test_a_chain_that_does_not_fit_loses_its_end_and_not_its_beginning():
    index = PrefixIndex(most=2)
    index.add(row(0), SIZE, [0, 1, 2], b"")
    assert index.find(row(0), SIZE, b"") == [0, 1]


def test_a_block_that_was_forgotten_can_be_added_again():
    index = PrefixIndex(most=3)
    index.add(row(0), SIZE, [0, 1, 2], b"")
    index.add(row(1), SIZE, [3, 4, 5], b"")
    assert not index.knows(0)
    index.add(row(0), SIZE, [6, 7, 8], b"")
    assert index.find(row(0), SIZE, b"") == [6, 7, 8]
