"""Selections on NumPy arrays, whose fastest way differs by framework: the best, the k-th, the likeliest, the rest."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["kth_value", "survivors", "top_k", "top_mass"]

Array = np.ndarray

GROUP = 64  # scores that kth_value looks at together, at first


def top_k(x: Array, k: int) -> tuple[Array, Array]:
    """The k largest values of each row, falling, and their columns, int32; equal values in column order."""
    least = kth_value(x, k)
    if not np.isfinite(least).all():
        columns = np.argsort(-x, axis=-1, kind="stable")[:, :k].astype(np.int32)
        return np.take_along_axis(x, columns, axis=-1), columns
    columns, values = survivors(np.where(x >= least, x, np.asarray(-np.inf, x.dtype)))
    order = np.argsort(-values, axis=-1, kind="stable")[:, :k]
    return np.take_along_axis(values, order, axis=-1), np.take_along_axis(columns, order, axis=-1)


def kth_value(x: Array, k: int | np.ndarray) -> Array:
    """["R 1"]: the k-th largest value of each row of x ["R V"]; k in [1, V] is a number or, on the host, Int["R 1"]."""
    least = int(np.max(k))
    if least * 4 * GROUP <= x.shape[-1]:
        x = survivors(np.where(x >= _lower_bound(x, least), x, np.asarray(-np.inf, x.dtype)))[1]
    width = x.shape[-1]
    partitioned = np.partition(x, np.unique(width - np.asarray(k)), axis=-1)
    return np.take_along_axis(partitioned, np.full((len(x), 1), width - k), axis=-1)


def _lower_bound(x: Array, count: int) -> Array:
    """["R 1"]: a value that at least `count` values of each row reach: so many groups have their maximum there."""
    whole = x.shape[-1] // GROUP * GROUP
    highest = x[:, :whole].reshape(len(x), -1, GROUP).max(axis=-1)
    return np.partition(highest, highest.shape[-1] - count, axis=-1)[:, -count][:, None]


def top_mass(scores: Array, tail: Any, keep: Any) -> Array:
    """Bool["R V"]: the likeliest tokens of each row, without the tail that holds little.

    A token is out if it and all that are less likely hold at most `tail` of the mass (of equally likely ones the last
    count as less likely), unless it is among the likeliest `keep`. Both are numbers or ["R 1"]. A negative tail keeps
    everything. Rows are done one by one, so that no sum's rounding depends on the others.
    """
    rows = len(scores)
    tails = np.broadcast_to(np.asarray(tail, dtype=np.float32), (rows, 1))[:, 0]
    counts = np.broadcast_to(np.asarray(keep), (rows, 1))[:, 0]
    kept = np.zeros(scores.shape, dtype=bool)
    for row in range(rows):
        kept[row, _likely_tokens(scores[row], tails[row], int(counts[row]))] = True
    return kept


def _likely_tokens(scores: Array, tail: np.float32, keep: int) -> Array:
    """The tokens of one row that top_mass keeps."""
    if tail < 0:
        return np.arange(len(scores))
    tokens = np.flatnonzero(scores > -np.inf)
    values = scores[tokens]
    with np.errstate(invalid="ignore"):  # a score of +inf leaves only itself
        raised = np.exp(values - values.max(initial=-np.inf))
        probabilities = raised / raised.sum()
    # K tokens that are no likelier than tail / K hold at most tail: such a token is out, and need not be sorted.
    open_to = probabilities * len(values) > tail
    if np.count_nonzero(open_to) < keep:
        open_to[:] = True
    places = np.flatnonzero(open_to)
    falling = places[np.argsort(-values[places], kind="stable")]
    below = probabilities[~open_to].sum(dtype=np.float64)
    held = below + np.cumsum(probabilities[falling[::-1]], dtype=np.float64)[::-1]
    return tokens[falling[(held.astype(np.float32) > tail) | (np.arange(len(falling)) < keep)]]


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
