"""What torch's CPU generator gives for a seed, in NumPy: marks are defined by it, with torch or without.

The generator is MT19937 (Matsumoto and Nishimura 1998), started from the low 32 bits of the seed; NumPy's frozen
RandomState runs the same engine. `torch.randperm` is a Fisher-Yates shuffle from the front: step i swaps place i with
place i + draw mod (size - i). Place i is settled after its step, so the front of a permutation needs no more steps
than it has places; and since chains of swaps are short, all places are followed through them at once.
"""

from __future__ import annotations

from functools import lru_cache
from threading import get_ident

import numpy as np

__all__ = ["LARGEST", "draws", "in_front", "is_in_front", "permutation"]

LARGEST = (2**32 - 1) // 20 - 1  # longer permutations torch makes from 64-bit draws; nothing here needs one


def draws(seed: int, count: int) -> np.ndarray:
    """Uint32["N"]: the generator's first words after `torch.manual_seed(seed)`."""
    engine = _engine(get_ident())
    engine.seed(seed & 0xFFFFFFFF)
    return engine.randint(0, 2**32, size=count, dtype=np.uint32)


@lru_cache(maxsize=64)
def _engine(thread: int) -> np.random.RandomState:
    """A thread's own generator, seeded before every use: to make one takes longer than to shuffle a small list."""
    return np.random.RandomState(0)


def permutation(seed: int, size: int, count: int | None = None) -> np.ndarray:
    """Int64["N"]: the first `count` values (None: all) of `torch.randperm(size)` on a CPU generator of that seed."""
    count = size if count is None else min(count, size)
    targets = _targets(seed, size, min(count, max(size - 1, 0)))
    last = _last_steps(size, targets)
    order = np.argsort(targets, kind="stable")
    again = targets[order[1:]] == targets[order[:-1]]
    previous = np.full(count, -1)  # the step before that put something into the place that this one takes from
    previous[order[1:][again]] = order[:-1][again]
    values = np.arange(count)  # the last place of all takes what is left there
    values[: len(targets)] = targets
    if count > len(targets):
        previous[-1] = last[count - 1]
    moved = previous >= 0
    values[moved] = _origins(last, previous[moved])
    return values


def in_front(seed: int, size: int, count: int) -> np.ndarray:
    """Bool["N"]: which values stand among the first `count` < size of `torch.randperm(size)`."""
    targets = _targets(seed, size, count)
    last = _last_steps(size, targets)
    behind = targets[targets >= count]  # places whose values come to the front, for values that go there
    front = np.zeros(size, dtype=bool)
    front[:count] = True
    front[behind] = True
    front[_origins(last, last[behind])] = False
    return front


def is_in_front(seed: int, size: int, count: int, value: int) -> bool:
    """Whether one value stands among the first `count` < size of `torch.randperm(size)`."""
    targets = _targets(seed, size, count)
    start, place = 0, value  # before step `start`, the value is at `place`
    while place < count:
        target = int(targets[place])
        if target == place or (targets[start:place] == place).any():
            return True
        start, place = place + 1, target
    return bool((targets[start:] == place).any())


def _targets(seed: int, size: int, count: int) -> np.ndarray:
    """Int64["C"]: the place that each of the shuffle's first steps swaps with its own."""
    left = np.arange(size, size - count, -1, dtype=np.uint32)
    return (draws(seed, count) % left).astype(np.int64) + np.arange(count)


def _last_steps(size: int, targets: np.ndarray) -> np.ndarray:
    """Int64["N"]: the last step that put another place's value into each place; -1: none did."""
    last = np.full(size, -1)
    moving = np.flatnonzero(targets != np.arange(len(targets)))
    last[targets[moving]] = moving  # of several assignments to one place the last one stays
    return last


def _origins(last: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Int64["P"]: the value at each of some places just before its own step, as it came from place to place."""
    origins = places.copy()
    before = last[places]
    moved = np.flatnonzero(before >= 0)
    while len(moved):
        origins[moved] = before = before[before >= 0]
        before = last[before]
        moved = moved[before >= 0]
    return origins
