"""SynthID's hashes: a linear congruential generator over n-grams and keys, modulo 2^64, on the host.

Fed with one token after another, hash becomes (hash + token) * MULTIPLIER + 1. The hash of an n-gram with a key is
therefore a sum of one term for the context, one for the token and one for the key: terms are computed once and added.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fabula.watermark.twister import draws

__all__ = ["MULTIPLIER", "accumulate", "places", "repeated", "sampling_table", "window_hashes"]

MULTIPLIER = 6364136223846793005


def accumulate(hashes: np.ndarray, data: np.ndarray, multiplier: int = MULTIPLIER, increment: int = 1) -> np.ndarray:
    """Uint64: hashes fed with data[..., 0], then data[..., 1] and so on; data has one axis more."""
    hashes, data = np.asarray(hashes).astype(np.uint64), np.asarray(data).astype(np.uint64)
    factor, more = np.array([multiplier % 2**64, increment % 2**64], dtype=np.uint64).reshape(2, 1)
    shape = np.broadcast_shapes(hashes.shape, data.shape[:-1])
    hashes = np.broadcast_to(hashes, shape).reshape(-1)  # one axis at least, as only numbers alone complain of overflow
    for column in range(data.shape[-1]):
        hashes = (hashes + np.broadcast_to(data[..., column], shape).reshape(-1)) * factor + more
    return hashes.reshape(shape)


def window_hashes(tokens: np.ndarray, width: int) -> np.ndarray:
    """Uint64["L-W+1"]: the hash of each run of `width` tokens of a text Int["L"], W >= 0."""
    count = max(len(tokens) - width + 1, 0)
    windows = np.stack([tokens[place : place + count] for place in range(width)], axis=-1) if width else None
    start = np.ones(count, dtype=np.uint64)
    return start if windows is None else accumulate(start, windows)


def repeated(hashes: np.ndarray, memory: int) -> np.ndarray:
    """Bool["N"]: hashes that are among the `memory` ones before them; the memory is full of zeros at first."""
    past = np.concatenate([np.zeros(memory, dtype=np.uint64), hashes])
    order = np.argsort(past, kind="stable")
    previous = np.full(len(past), -memory - 1)
    same = past[order[1:]] == past[order[:-1]]
    previous[order[1:][same]] = order[:-1][same]
    return (np.arange(len(past)) - previous <= memory)[memory:]


def places(hashes: np.ndarray, size: int) -> np.ndarray:
    """Int64: where in a table of `size` the hashes lie; they count as signed, as torch's do."""
    return hashes.view(np.int64) % size


@lru_cache(maxsize=8)
def sampling_table(seed: int, size: int) -> np.ndarray:
    """Bool["S"]: the g-values, as `torch.randint(0, 2, (size,))` gives them on a CPU generator of that seed."""
    return (draws(seed, size) & 1).astype(bool)
