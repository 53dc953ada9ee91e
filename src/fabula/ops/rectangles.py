"""A ragged batch as calls of fixed shape, for backends that compile a program for each shape.

A shape is rounded up to a bucket, so that there are few of them: rows, new positions and blocks are powers of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula.cache.blocks import BLOCK, blocks_for
from fabula.cache.groups import reach
from fabula.ops.protocol import Batch

__all__ = ["LEAST_BLOCKS", "LEAST_WIDTH", "Rectangle", "bucket", "by_row", "in_rectangle", "rectangles", "scored_order"]

LEAST_WIDTH = 16  # new positions of a row, where a row of the rectangle has more than one
LEAST_BLOCKS = 4  # blocks of a row's table
ALIKE = 4  # rows go together where the widest has at most so many times the new positions of the narrowest


@dataclass(frozen=True, slots=True)
class Rectangle:
    """R rows of N new positions. Rows are padded at their end; behind the r rows of the batch are rows of padding.

    All arrays are NumPy int32 on the host; R, N, B and S are buckets.
    """

    tokens: np.ndarray  # Int["R N"]: ids; 0 where there is padding
    positions: np.ndarray  # Int["R N"]: each token's position in its row; padding repeats the row's last
    slots: np.ndarray  # Int["R N"]: block * BLOCK + place in the block; `nowhere` where there is padding
    tables: np.ndarray  # Int["R B"]: the blocks of each row, in order; unused entries 0
    lengths: np.ndarray  # Int["R"]: positions that the row has after this step; 0 for rows of padding
    scored: np.ndarray  # Int["S"]: indices into [0, R * N) whose outputs are wanted, padded with 0; S is R or R * N
    outputs: np.ndarray  # Int["s"]: where the first s of those lie among the batch's scored positions
    index: np.ndarray  # Int["R N"]: where each token lies in the batch's [0, T); 0 where there is padding
    rows: np.ndarray  # Int["r"]: which rows of the batch these are
    counts: np.ndarray  # Int["r"]: how many of the N positions are the row's own

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """R, N, B and S: rectangles of one shape are computed by one program."""
        return (*self.tokens.shape, self.tables.shape[1], len(self.scored))

    def reach(self, window: int | None) -> tuple[np.ndarray, np.ndarray]:
        """The blocks that the rows see within a window, Int["R C"], and where the first begins, Int["R"]."""
        return reach(self.tables, self.positions[:, 0], self.tokens.shape[1], window)


def bucket(count: int, least: int = 1) -> int:
    """The least power of two that is at least `count` and `least`."""
    return max(least, 1 << max(0, count - 1).bit_length())


def rectangles(batch: Batch, nowhere: int) -> tuple[Rectangle, ...]:
    """The batch's rows with new positions: those with one, then those with more, the widest first.

    `nowhere`: the slot of padding, which a cache does not have.
    """
    counts = np.diff(batch.starts)
    return tuple(_rectangle(batch, counts, rows, nowhere) for rows in _groups(counts))


def scored_order(parts: Sequence[Rectangle]) -> np.ndarray | None:
    """Int["S"]: where the outputs of the batch's scored positions lie among those of all rectangles, end to end.

    Only a rectangle's own outputs are counted, not those of padding. None: they are in order.
    """
    found = np.concatenate([part.outputs for part in parts]) if parts else np.zeros(0, np.int32)
    order = np.argsort(found).astype(np.int32)
    return None if np.array_equal(order, np.arange(len(order))) else order


def by_row(parts: Sequence[Rectangle], values: Iterable[Any]) -> tuple[Any, ...]:
    """Of each row that computes anything, in the batch's order, its part of values [R, heads, N, keys].

    Each is [heads, new, keys]: as many as the row has new positions, and as many keys as it has after this step.
    """
    found = {}
    for part, value in zip(parts, values, strict=True):
        for place, (row, count) in enumerate(zip(part.rows.tolist(), part.counts.tolist(), strict=True)):
            found[row] = value[place, :, :count, : part.lengths[place]]
    return tuple(found[row] for row in sorted(found))


def in_rectangle(part: Rectangle, values: np.ndarray) -> np.ndarray:
    """["R N ..."]: values ["T ..."] of the batch's positions; where there is padding, anything."""
    return values[part.index]


def _groups(counts: np.ndarray) -> list[np.ndarray]:
    """The rows that go together: with one new position, and with about as many."""
    groups = [np.flatnonzero(counts == 1)]
    wide = np.flatnonzero(counts > 1)
    wide = wide[np.argsort(-counts[wide], kind="stable")]
    while len(wide):
        widest = int(counts[wide[0]])
        together = int(np.count_nonzero(counts[wide] * ALIKE >= widest)) if widest > LEAST_WIDTH else len(wide)
        groups.append(np.sort(wide[:together]))
        wide = wide[together:]
    return [rows for rows in groups if len(rows)]


def _rectangle(batch: Batch, counts: np.ndarray, rows: np.ndarray, nowhere: int) -> Rectangle:
    own = counts[rows]
    longest = int(own.max())
    height, width = bucket(len(rows)), 1 if longest == 1 else bucket(longest, LEAST_WIDTH)
    columns = np.arange(width)
    real = np.zeros((height, width), bool)
    real[: len(rows)] = columns < own[:, None]
    near = np.minimum(columns, own[:, None] - 1)  # padding repeats the row's last position
    places = _padded(batch.first[rows][:, None] + near, height)
    index = np.where(real, _padded(batch.starts[:-1][rows][:, None] + near, height), 0)
    lengths = _padded(batch.first[rows] + own, height)
    tables = np.zeros((height, bucket(blocks_for(int(lengths.max())), LEAST_BLOCKS)), np.int32)
    taken = min(tables.shape[1], batch.tables.shape[1])
    tables[: len(rows), :taken] = batch.tables[rows, :taken]
    slots = np.take_along_axis(tables, places // BLOCK, 1).astype(np.int64) * BLOCK + places % BLOCK
    scored, outputs = _scored(batch, index, real)
    return Rectangle(
        np.where(real, batch.tokens[index], 0).astype(np.int32) if len(batch.tokens) else np.zeros_like(index),
        places.astype(np.int32),
        np.where(real, slots, nowhere).astype(np.int32),
        tables,
        lengths.astype(np.int32),
        scored,
        outputs,
        index.astype(np.int32),
        rows.astype(np.int32),
        own.astype(np.int32),
    )


def _padded(values: np.ndarray, height: int) -> np.ndarray:
    """Values of rows with zeros for rows of padding."""
    padded = np.zeros((height, *values.shape[1:]), np.int64)
    padded[: len(values)] = values
    return padded


def _scored(batch: Batch, index: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the rectangle's places are scored, in the batch's order within each row, and which outputs those are."""
    place_of = np.full(int(batch.starts[-1]), -1, np.int64)  # of each of the batch's scored positions
    place_of[batch.scored] = np.arange(len(batch.scored))
    outputs = np.where(real, place_of[index], -1).reshape(-1)
    found = np.flatnonzero(outputs >= 0)
    size = index.shape[0] if len(found) <= index.shape[0] else index.size
    scored = np.zeros(size, np.int32)
    scored[: len(found)] = found
    return scored, outputs[found].astype(np.int32)
