"""What a drafting model keeps of each row: blocks of its own cache, and which tokens they were computed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from fabula.cache.blocks import BlockPool, Table
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps

__all__ = ["DraftCache", "DraftModel", "DraftRow"]


class DraftModel(Protocol):
    """All that drafting knows of a model."""

    def new_cache(self, blocks: int) -> Any: ...

    def step(self, batch: Batch, cache: Any, taps: Taps = NO_TAPS) -> Forward: ...


class DraftRow:
    """A row as the drafting model sees it; the drafter's to change."""

    __slots__ = ("computed", "length", "table", "tokens")

    def __init__(self, pool: BlockPool) -> None:
        self.table = Table(pool)
        self.tokens = np.zeros(0, np.int32)  # [0, length) count
        self.length = 0
        self.computed = 0  # positions in the cache

    @property
    def missing(self) -> int:
        """Positions still to be computed before the next token can be drafted."""
        return self.length - self.computed

    def become(self, tokens: np.ndarray, room: int) -> None:
        """Goes back to where the tokens, Int["L"], leave what is computed, and holds them; `room` more will follow."""
        known = min(self.computed, len(tokens) - 1)
        apart = np.flatnonzero(self.tokens[:known] != tokens[:known])
        self.computed = int(apart[0]) if len(apart) else known
        self.table.truncate(self.computed)
        self.length = len(tokens)
        self.tokens = np.concatenate([tokens, np.zeros(room, np.int32)]).astype(np.int32)

    def append(self, token: int) -> None:
        """The drafted token becomes part of what has to be computed."""
        self.tokens[self.length] = token
        self.length += 1

    def drop(self) -> None:
        """Gives all blocks back."""
        self.table.truncate(0)
        self.computed = 0


class DraftCache:
    """The drafting model's keys and values, for rows that come and go."""

    def __init__(self, model: DraftModel) -> None:
        self.model = model
        self.storage = model.new_cache(4)
        self.pool = BlockPool(self.storage.blocks)

    def new_row(self) -> DraftRow:
        """A row of which nothing is computed."""
        return DraftRow(self.pool)

    def step(self, work: Sequence[tuple[DraftRow, int]]) -> Any:
        """Computes so many missing positions of each row: Float["N V"], the logits of the rows that then miss none.

        Raises OutOfMemoryError where the cache cannot grow; then nothing has changed but who has blocks.
        """
        missing = sum(row.table.missing(row.computed, row.computed + count) for row, count in work)
        self._reserve(missing)
        for row, count in work:
            row.table.write(row.computed, row.computed + count)
        logits = self.model.step(_batch(work), self.storage).logits
        for row, count in work:
            row.computed += count
        return logits

    def _reserve(self, blocks: int) -> None:
        short = blocks - len(self.pool.free)
        if short > 0:
            total = self.pool.blocks + max(short, self.pool.blocks)
            self.storage.grow(total)
            self.pool.grow(total)


def _batch(work: Sequence[tuple[DraftRow, int]]) -> Batch:
    """The positions that are computed now; scored is the last one of each row that then misses none."""
    starts = np.cumsum([0, *(count for _, count in work)]).astype(np.int32)
    tables = np.zeros((len(work), max(len(row.table.blocks) for row, _ in work)), np.int32)
    for place, (row, _) in enumerate(work):
        tables[place, : len(row.table.blocks)] = row.table.blocks
    complete = np.array([row.missing == count for row, count in work])
    return Batch(
        tokens=np.concatenate([row.tokens[row.computed : row.computed + count] for row, count in work]),
        starts=starts,
        first=np.array([row.computed for row, _ in work], np.int32),
        tables=tables,
        scored=(starts[1:] - 1)[complete],
    )
