"""What an encoder leaves for a decoder, as arrays of all layers, and how the rows of a step find their part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from fabula.errors import ArgumentError
from fabula.ops.rectangles import Rectangle, bucket

__all__ = ["Joined", "Memories", "Memory", "Together", "columns_of", "joined"]

Array = Any  # of JAX or TensorFlow
# (arrays ["layers M S heads head_dim"], columns, rows) -> one, each padded to the columns, all together to the rows
Together = Callable[[Sequence[Array], int, int], Array]


@dataclass(frozen=True, eq=False, slots=True)
class Memories:
    """What each decoder layer reads of an encoder's output for M inputs; M and S are buckets."""

    keys: Array  # Float["layers M S heads head_dim"]
    values: Array
    mask: np.ndarray  # Bool["M S"]: which columns are tokens
    rows: int  # how many of the M are inputs
    columns: int  # how many of the S are the encoder's

    def each(self) -> list[Memory]:
        """One for each input."""
        return [Memory(self, index) for index in range(self.rows)]


@dataclass(frozen=True, eq=False, slots=True)
class Memory:
    """One input's part; all rows that continue from that input share it."""

    of: Memories
    index: int


@dataclass(frozen=True, slots=True)
class Joined:
    """The memories of a step's rows, as one, and where each row's is."""

    whole: Memories
    lines: np.ndarray  # Int["rows of the batch"]
    columns: tuple[int, ...]  # of each row

    def lines_of(self, part: Rectangle) -> np.ndarray:
        """Int["R"]: which of the M each row of a rectangle reads."""
        return self._padded(self.lines[part.rows], part.tokens.shape[0])

    def first_lines(self, rows: int) -> np.ndarray:
        """Int["R"]: which of the M each of so many rows reads, the batch's being the first."""
        return self._padded(self.lines, rows)

    def by_row(self, parts: Sequence[Rectangle], values: Sequence[Array]) -> tuple[np.ndarray, ...]:
        """Of each row that computes anything, in the batch's order, Float["heads new columns"], on the host."""
        found = {}
        for part, value in zip(parts, values, strict=True):
            weights = np.asarray(value, np.float32)
            for place, (row, count) in enumerate(zip(part.rows.tolist(), part.counts.tolist(), strict=True)):
                found[row] = weights[place, :, :count, : self.columns[row]]
        return tuple(found[row] for row in sorted(found))

    def _padded(self, lines: np.ndarray, rows: int) -> np.ndarray:
        """With rows of padding, which read what may be anything."""
        return np.pad(lines, (0, rows - len(lines)))


def joined(memories: Sequence[Any], together: Together) -> Joined | None:
    """The memories of a batch's rows; None where the model has none. Raises ArgumentError for another model's."""
    if not memories:
        return None
    for memory in memories:
        if not isinstance(memory, Memory):
            raise ArgumentError(
                f"a row's memory must be what `encode` of its model returned, got {type(memory).__name__}."
            )
    parts = tuple(dict.fromkeys(memory.of for memory in memories))
    firsts = dict(zip(parts, np.cumsum([0, *(len(part.mask) for part in parts)]).tolist(), strict=False))
    lines = np.array([firsts[memory.of] + memory.index for memory in memories], np.int32)
    whole = parts[0] if len(parts) == 1 else _as_one(parts, together)
    return Joined(whole, lines, tuple(memory.of.columns for memory in memories))


def columns_of(memories: Joined | None) -> int:
    """S of what a step's rows read, a bucket; 0 where they read nothing but themselves."""
    return 0 if memories is None else int(memories.whole.mask.shape[1])


@lru_cache(maxsize=1)  # the same rows take many steps
def _as_one(parts: tuple[Memories, ...], together: Together) -> Memories:
    """Several as one: columns padded to the widest, rows to a bucket."""
    width, count = max(part.mask.shape[1] for part in parts), sum(len(part.mask) for part in parts)
    masks = [np.pad(part.mask, ((0, 0), (0, width - part.mask.shape[1]))) for part in parts]
    mask = np.pad(np.concatenate(masks), ((0, bucket(count) - count), (0, 0)))
    keys, values = (
        together(arrays, width, len(mask)) for arrays in zip(*((p.keys, p.values) for p in parts), strict=True)
    )
    return Memories(keys, values, mask, count, width)
