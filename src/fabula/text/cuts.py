"""Every way to cut tokens of a vocabulary into two of its tokens.

A vocabulary of 262,144 tokens has over a million cuts. Each part is looked up by a hash of 64 bits that follows from
running sums (Karp and Rabin 1987), all parts at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Pairs = list[tuple[str, str]]

_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_BITS = 22  # of a hash, by which its place in a table is found


def likely_cuts(tokens: Sequence[str], order: np.ndarray, multiplier: int = _MULTIPLIER) -> Pairs:
    """`every_cut` in half the time; and, once in 10**7 vocabularies, a cut into a part that is no token beside it."""
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    ends = np.cumsum(lengths)
    letters = np.frombuffer("".join(tokens).encode("utf-32-le", "surrogatepass"), np.uint32)
    hashes = _Hashes(letters, multiplier)
    starts, vocabulary = ends - lengths, _HashSet(hashes.of(ends - lengths, ends))
    places, middles = _middles(lengths, order)
    rights = vocabulary.holds(hashes.of(starts[places] + middles, ends[places]))
    places, middles = places[rights], middles[rights]
    lefts = vocabulary.holds(hashes.of(starts[places], starts[places] + middles))
    places, middles = places[lefts], middles[lefts]
    return [
        ((token := tokens[place])[:middle], token[middle:])
        for place, middle in zip(places.tolist(), middles.tolist(), strict=True)
    ]


def every_cut(tokens: Sequence[str], order: np.ndarray) -> Pairs:
    """The cuts of the tokens at the places `order` (Int["n"]), in that order; the longest left part comes first."""
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


class _HashSet:
    """Numbers of 64 bits but 0, most of which have a place of their own in a table."""

    def __init__(self, members: np.ndarray) -> None:
        self._table = np.zeros(1 << _BITS, np.uint64)
        self._table[_place(members)] = members
        self._others = np.sort(members[self._table[_place(members)] != members])

    def holds(self, numbers: np.ndarray) -> np.ndarray:
        """Bool["n"]: which of the numbers are members."""
        taken = self._table[_place(numbers)]
        held = taken == numbers
        other = np.flatnonzero(~held & (taken != 0))
        if len(self._others):
            near = np.searchsorted(self._others[:-1], numbers[other])
            held[other] = self._others[near] == numbers[other]
        return held


def _place(numbers: np.ndarray) -> np.ndarray:
    return numbers >> np.uint64(64 - _BITS)


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
