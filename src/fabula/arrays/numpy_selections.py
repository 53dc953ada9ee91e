"""Selections on NumPy arrays, whose fastest way differs by framework: the best, the k-th, the rest."""

from __future__ import annotations

import numpy as np

__all__ = ["kth_value", "survivors", "top_k", "without"]

Array = np.ndarray

GROUPS_OF = 64  # scores of which kth_value looks at the highest first
NEAR = 1 << 16  # scores of all rows that stay in a near cache


def top_k(x: Array, k: int) -> tuple[Array, Array]:
    """The k largest values of each row, falling, and their columns, int32; equal values in column order."""
    if len(x) > 1 and x.size <= NEAR:
        return _top_k_at_once(x, k)
    columns = np.empty((len(x), k), dtype=np.int32)
    values = np.empty((len(x), k), dtype=x.dtype)
    for row, scores in enumerate(x):
        found = np.flatnonzero(~(scores < _bound(scores[None], k)[0]))
        high = scores[found]
        best = np.argsort(-high, kind="stable")[:k]
        columns[row], values[row] = found[best], high[best]
    return values, columns


def _top_k_at_once(x: Array, k: int) -> tuple[Array, Array]:
    """The same for all rows in a few steps, where these cost more than what they do."""
    found = np.flatnonzero(~(x < _bound(x, k)[:, None]))
    rows, high = found // x.shape[1], x.reshape(-1)[found]
    order = np.lexsort((-high, rows))
    counts = np.bincount(rows, minlength=len(x))
    best = order[(np.cumsum(counts) - counts)[:, None] + np.arange(k)]
    return high[best], (found[best] % x.shape[1]).astype(np.int32)


def kth_value(x: Array, k: int | np.ndarray) -> Array:
    """["R 1"]: the k-th largest value of each row of x ["R V"]; k in [1, V] is a number or, on the host, Int["R 1"]."""
    ranks = np.broadcast_to(np.asarray(k), (len(x), 1))[:, 0].tolist()
    return np.array([[_kth(*row)] for row in zip(x, ranks, strict=True)], dtype=x.dtype)


def _kth(x: Array, k: int) -> np.generic:
    """The k-th largest of a row."""
    if k == 1:
        return x.max()
    if 4 * k <= len(x) // GROUPS_OF:
        x = x[~(x < _bound(x[None], k)[0])]
    return np.partition(x, len(x) - k)[len(x) - k]


def _bound(x: Array, k: int) -> Array:
    """["R"]: what the k largest of a row reach, and few others: the k-th largest of groups' maxima, or of all."""
    groups = x.shape[1] // GROUPS_OF
    if 4 * k <= groups:
        x = x[:, : groups * GROUPS_OF].reshape(-1, GROUPS_OF, groups).max(axis=1)
    return np.partition(x, x.shape[1] - k, axis=1)[:, x.shape[1] - k]


def without(x: Array, removed: Array, value: float) -> Array:
    """x ["R V"] with one value where removed Bool["R V"] holds: `where` that no unforeseeable pattern slows down."""
    if x.dtype != np.float32:
        return np.where(removed, np.asarray(value, x.dtype), x)
    result = np.empty(x.shape, dtype=x.dtype)
    filler = np.float32(value).view(np.int32)
    for row, bits in enumerate(np.ascontiguousarray(x).view(np.int32)):
        mask = removed[row].astype(np.int32)
        np.negative(mask, out=mask)  # all bits set where removed
        np.bitwise_and(bits, ~mask, out=result[row].view(np.int32))
        mask &= filler
        result[row].view(np.int32)[:] |= mask
    return result


def survivors(scores: Array) -> tuple[Array, Array]:
    """Tokens Int["R K"], rising, and their scores: all that are above -inf; short rows end in tokens at -inf.

    K is the largest count of a row here; where shapes must be fixed, or counting would mean waiting, the vocabulary.
    """
    vocabulary = scores.shape[-1]
    found = np.flatnonzero(scores > -np.inf)
    counts = np.diff(np.searchsorted(found, np.arange(len(scores) + 1) * vocabulary))
    width = int(counts.max(initial=1))
    if width == vocabulary:
        return np.broadcast_to(np.arange(vocabulary, dtype=np.int32), scores.shape), scores
    columns = (found - np.repeat(np.arange(len(scores)) * vocabulary, counts)).astype(np.int32)
    if (counts == width).all():
        return columns.reshape(-1, width), scores.reshape(-1)[found].reshape(-1, width)
    places = np.arange(width) < counts[:, None]
    tokens = np.zeros((len(scores), width), dtype=np.int32)
    values = np.full((len(scores), width), -np.inf, dtype=scores.dtype)
    tokens[places] = columns
    values[places] = scores.reshape(-1)[found]
    return tokens, values
