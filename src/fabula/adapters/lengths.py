"""Rows of one length, which are computed together, and what a module keeps of them from one step to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula.ops.protocol import Batch


@dataclass(frozen=True, slots=True)
class Asked:
    """A row of which something is scored."""

    tokens: np.ndarray  # Int["L"], to the end of this step
    scored: np.ndarray  # Int["S"]: positions, rising
    outputs: np.ndarray  # Int["S"]: where they lie among the step's


@dataclass(frozen=True, slots=True)
class Lane:
    """Rows of one length, and what the module keeps of them."""

    tokens: np.ndarray  # Int["R C"]
    past: Any
    room: int | None = None  # the columns that there is room for; None: it grows

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.tokens)

    @property
    def columns(self) -> int:
        """How long they are."""
        return int(self.tokens.shape[1])


def asked_rows(batch: Batch, rows: Sequence[np.ndarray]) -> list[Asked]:
    """Those of the rows, each of all its tokens, that have scored positions."""
    found = []
    for row, tokens in enumerate(rows):
        outputs = np.flatnonzero((batch.scored >= batch.starts[row]) & (batch.scored < batch.starts[row + 1]))
        if len(outputs):
            scored = batch.scored[outputs] - batch.starts[row] + batch.first[row]
            found.append(Asked(tokens, scored, outputs))
    return found


def by_length(asked: Sequence[Asked]) -> Iterator[tuple[list[Asked], np.ndarray, int]]:
    """The rows of each length, their tokens Int["R L"], and the first column that one of them must be scored at."""
    for length in sorted({len(row.tokens) for row in asked}):
        rows = [row for row in asked if len(row.tokens) == length]
        yield rows, np.stack([row.tokens for row in rows]), min(int(row.scored[0]) for row in rows)


def continued(
    lanes: Sequence[Lane], tokens: np.ndarray, limit: int, follows: Callable[[Lane], bool]
) -> tuple[Lane | None, list[int]]:
    """The lane that rows Int["R L"] go on from, of `limit` columns at most, and which of its rows each continues.

    The list is empty where each continues its own; only of a lane that `follows` are rows taken in another order.
    """
    for lane in lanes:
        if lane.columns > limit or (lane.room is not None and tokens.shape[1] > lane.room):
            continue
        known = {row.tobytes(): place for place, row in enumerate(lane.tokens)}
        places = [known.get(row[: lane.columns].tobytes(), -1) for row in tokens]
        same = places == list(range(lane.rows))
        if same or (-1 not in places and follows(lane)):
            return lane, [] if same else places
    return None, []


def order_of(asked: Sequence[Asked]) -> np.ndarray:
    """Where each of the step's outputs lies among those of these rows, one after another: Int["O"]."""
    return np.argsort(np.concatenate([row.outputs for row in asked]))


def alike(logits: Any, others: Any) -> bool:
    """Whether two results of the same columns differ by rounding alone."""
    return bool(np.allclose(logits, others, rtol=1e-4, atol=1e-4 * float(np.abs(others).max())))
