"""Every way to cut tokens of a vocabulary into two of its tokens.

A vocabulary of 262,144 tokens has over a million cuts. Each part is looked up by a hash of 64 bits that follows from
running sums (Karp and Rabin 1987), all parts at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Pairs = list[tuple[str, str]]

_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_BITS = 22  # of a hash, by which its entry in a table is found
_TOGETHER = 1 << 15  # tokens whose cuts are looked at together


def every_cut(tokens: Sequence[str], order: np.ndarray, multiplier: int = _MULTIPLIER) -> Pairs:
    """The cuts of the tokens at the places `order` (Int["n"]), in that order; the longest left part comes first.

    The parts are the vocabulary's own strings, and few tokens are looked at together: memory is for the pairs alone.
    Where a hash misleads, as in one of 10**7 vocabularies, they are found one by one.
    """
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    ends = np.cumsum(lengths)
    letters = np.frombuffer("".join(tokens).encode("utf-32-le", "surrogatepass"), np.uint32)
    hashes = _Hashes(letters, multiplier)
    starts, vocabulary = ends - lengths, _Vocabulary(hashes.of(ends - lengths, ends))
    pairs: Pairs = []
    for first in range(0, len(order), _TOGETHER):
        places, middles = _middles(lengths, order[first : first + _TOGETHER])
        rights = vocabulary.find(hashes.of(starts[places] + middles, ends[places]))
        held = rights >= 0
        places, middles, rights = places[held], middles[held], rights[held]
        lefts = vocabulary.find(hashes.of(starts[places], starts[places] + middles))
        found = [part[lefts >= 0].tolist() for part in (lefts, rights, places)]
        if not all(tokens[left] + tokens[right] == tokens[place] for left, right, place in zip(*found, strict=True)):
            return one_by_one(tokens, order)
        pairs += [(tokens[left], tokens[right]) for left, right in zip(*found[:2], strict=True)]
    return pairs


def one_by_one(tokens: Sequence[str], order: np.ndarray) -> Pairs:
    """`every_cut`, slowly."""
    vocabulary = frozenset(tokens)
    return [
        (token[:middle], token[middle:])
        for token in (tokens[place] for place in order.tolist())
        for middle in range(len(token) - 1, 0, -1)
        if token[middle:] in vocabulary and token[:middle] in vocabulary
    ]


class _Hashes:
    """Hashes of all parts of a text: the sum of letter times multiplier ** place, brought to the part's start."""

    def __init__(self, letters: np.ndarray, multiplier: int) -> None:
        self._sums = np.zeros(len(letters) + 1, np.uint64)
        np.cumsum(letters * _powers(multiplier, len(letters)), out=self._sums[1:])
        self._back = _powers(pow(multiplier, -1, 1 << 64), len(letters) + 1) * np.uint64(_MULTIPLIER)

    def of(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """UInt64["n"]: of the parts [start, end); never 0."""
        return (self._sums[ends] - self._sums[starts]) * self._back[starts] | np.uint64(1)


class _Vocabulary:
    """The places of tokens by their hashes, most of which have an entry of their own in a table."""

    def __init__(self, hashes: np.ndarray) -> None:
        self._hashes = hashes
        self._table = np.full(1 << _BITS, -1, np.int32)
        self._table[_entry(hashes)] = np.arange(len(hashes), dtype=np.int32)
        others = np.flatnonzero(hashes != hashes[self._table[_entry(hashes)]])
        self._others = others[np.argsort(hashes[others])]
        self._other_hashes = hashes[self._others]

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Int["n"]: the place of the token of each hash, or -1."""
        places = self._table[_entry(hashes)]
        other = np.flatnonzero((places >= 0) & (self._hashes[places] != hashes))
        places[other] = -1
        if len(self._others):
            near = np.searchsorted(self._other_hashes[:-1], hashes[other])
            equal = self._other_hashes[near] == hashes[other]
            places[other[equal]] = self._others[near[equal]]
        return places


def _entry(hashes: np.ndarray) -> np.ndarray:
    return hashes >> np.uint64(64 - _BITS)


def _powers(number: int, count: int) -> np.ndarray:
    """UInt64["count"]: number ** 0, number ** 1, ..., modulo 2**64."""
    powers = np.full(count, number, np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def _middles(lengths: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every cut, the token's place and how many letters lie left of it."""
    counts = np.maximum(lengths[order] - 1, 0)
    lasts = np.cumsum(counts)
    return np.repeat(order, counts), np.repeat(lasts, counts) - np.arange(lasts[-1] if len(lasts) else 0)
