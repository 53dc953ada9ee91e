"""Masses on NumPy arrays: which entries, in order of value, hold how much; one row after another.

Nothing is sorted but the entries near the limit: a histogram of weights says in which of many narrow bins it lies. Rows
are done one by one, so that no sum's rounding depends on the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["mass_reach", "top_mass"]

Array = np.ndarray

BINS = 2048
FEW = 1024  # entries that are sorted at once


def top_mass(scores: Array, tail: Any, keep: Any) -> Array:
    """Bool["R V"]: the likeliest tokens of each row, without the tail that holds little.

    A token is out if it and all that are less likely hold at most `tail` of the mass (of equally likely ones the last
    count as less likely), unless it is among the likeliest `keep`. Both are numbers or ["R 1"]. A negative tail keeps
    everything.
    """
    rows = len(scores)
    tails = np.broadcast_to(np.asarray(tail, dtype=np.float32), (rows, 1))[:, 0]
    counts = np.broadcast_to(np.asarray(keep), (rows, 1))[:, 0]
    kept = np.zeros(scores.shape, dtype=bool)
    for row in range(rows):
        kept[row] = _likely(scores[row], tails[row], int(counts[row]))
    return kept


def mass_reach(x: Array, weights: Array, mass: Any) -> Array:
    """["R 1"]: the least value of each row of x ["R V"] up to which its weights ["R V"] reach `mass`, one or ["R 1"].

    The largest value where they do not.
    """
    rows = len(x)
    masses = np.broadcast_to(np.asarray(mass, dtype=np.float32), (rows, 1))[:, 0]
    return np.array([[_reach(*row)] for row in zip(x, weights, masses, strict=True)], dtype=x.dtype)


def _likely(scores: Array, tail: np.float32, keep: int) -> Array:
    """Bool["V"]: the tokens of one row that top_mass keeps."""
    if tail < 0:
        return np.ones(len(scores), dtype=bool)
    possible = scores > -np.inf
    if possible.all():
        return _within(scores, tail, keep)
    kept = np.zeros(len(scores), dtype=bool)
    kept[possible] = _within(scores[possible], tail, keep)
    return kept


def _within(scores: Array, tail: np.float32, keep: int) -> Array:
    """Bool["V"]: as _likely, of scores of which none is -inf."""
    with np.errstate(invalid="ignore"):  # a score of +inf leaves only itself
        distances = scores.max(initial=-np.inf) - scores
        weights = np.exp(-distances)
        weights /= weights.sum()
    kept, open_to, below = _around_limit(distances, weights, tail)
    sure = int(np.count_nonzero(kept))
    if sure + len(open_to) < keep:
        kept, open_to, below, sure = np.zeros(len(scores), dtype=bool), np.arange(len(scores)), 0.0, 0
    falling = open_to[np.argsort(-scores[open_to], kind="stable")]
    held = below + np.cumsum(weights[falling[::-1]], dtype=np.float64)[::-1]
    kept[falling[(held.astype(np.float32) > tail) | (sure + np.arange(len(falling)) < keep)]] = True
    return kept


def _around_limit(distances: Array, weights: Array, tail: np.float32) -> tuple[Array, Array, float]:
    """Bool["V"]: what is surely within; Int["N"]: what must be sorted; the mass of what is surely beyond."""
    nothing, everything = np.zeros(len(distances), dtype=bool), np.arange(len(distances))
    span = distances.max(initial=0.0)
    if len(distances) <= FEW or not 0 < span < np.inf:
        return nothing, everything, 0.0
    if tail > 0:  # K tokens that are no likelier than tail / K hold at most tail: those need no bins
        span = min(span, max(1.0, float(np.log(len(distances) * weights.max() / tail))))
    bins = _binned(distances, 0.0, span)
    held = np.cumsum(np.bincount(bins, weights, BINS)[::-1])[::-1]
    limit = int(np.count_nonzero(held.astype(np.float32) > tail)) - 1  # the last bin of which something is within
    if limit < 0:
        return nothing, everything, 0.0
    below = float(held[limit + 1]) if limit + 1 < BINS else 0.0
    return bins < limit, np.flatnonzero(bins == limit), below


def _reach(x: Array, weights: Array, mass: np.float32) -> Any:
    """What mass_reach gives for one row."""
    before = 0.0
    low = x.min()
    span = x.max(where=x < np.inf, initial=low) - low
    if len(x) > FEW and 0 < span < np.inf:
        bins = _binned(x, low, span)
        held = np.cumsum(np.bincount(bins, weights, BINS))
        limit = min(int(np.count_nonzero(held.astype(np.float32) < mass)), BINS - 1)
        before = float(held[limit - 1]) if limit else 0.0
        near = bins == limit
        x, weights = (x[near], weights[near]) if near.any() else (x, weights)
    rising = np.argsort(x, kind="stable")
    near_held = before + np.cumsum(weights[rising], dtype=np.float64)
    place = min(int(np.count_nonzero(near_held.astype(np.float32) < mass)), len(x) - 1)
    return x[rising[place]]


def _binned(x: Array, low: Any, span: Any) -> Array:
    """Int["V"]: the bin of each entry; a larger entry is never in a lower bin."""
    scaled = (x - np.float32(low)) * np.float32(BINS / span)
    return np.minimum(scaled, np.float32(BINS - 1)).astype(np.int32)
