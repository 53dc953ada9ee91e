"""Which block belongs to whom: a pool that counts holders, and one table of blocks a row.

A block holds the keys and values of `BLOCK` positions in every layer. It is FREE (no holder; it may still carry a
prefix that can be found again) or USED (as many holders as tables list it). A block is written only by a sole holder:
otherwise the writer takes a copy first.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from fabula.cache.prefixes import PrefixIndex
from fabula.errors import OutOfMemoryError

BLOCK = 32  # positions a block


def blocks_for(length: int) -> int:
    """How many blocks hold `length` positions."""
    return -(-length // BLOCK)


class BlockPool:
    """The holders of each block, and the free ones, least recently used first."""

    def __init__(self, blocks: int, window: int | None = None) -> None:
        """`window`: no layer of the model sees further back; None: some layer sees everything."""
        self.window = window
        self.holders = np.zeros(blocks, np.int32)
        self.free: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))
        self.prefixes = PrefixIndex()

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self.holders)

    def grow(self, blocks: int) -> None:
        """Adds free blocks until there are `blocks`."""
        for block in range(self.blocks, blocks):
            self.free[block] = None
            self.free.move_to_end(block, last=False)
        self.holders = np.concatenate([self.holders, np.zeros(max(0, blocks - self.blocks), np.int32)])

    def take(self) -> int:
        """A block for one holder, what it held before forgotten. Raises OutOfMemoryError when none is free."""
        if not self.free:
            raise OutOfMemoryError(f"all {self.blocks} cache blocks are in use")
        block, _ = self.free.popitem(last=False)
        self.prefixes.forget(block)
        self.holders[block] = 1
        return block

    def hold(self, block: int) -> None:
        """One more holder, of a used block or of a free one that was found by its prefix."""
        self.free.pop(block, None)
        self.holders[block] += 1

    def release(self, block: int) -> None:
        """One holder less; without any the block is free, and can be found by its prefix until it is taken."""
        self.holders[block] -= 1
        if self.holders[block] == 0:
            self.free[block] = None
            if not self.prefixes.knows(block):
                self.free.move_to_end(block, last=False)

    def check(self, tables: list[Table]) -> None:
        """Asserts that each block is free or used, and held by as many tables as counted."""
        counted = np.zeros(self.blocks, np.int32)
        for table in tables:
            np.add.at(counted, table.blocks[table.behind :], 1)
        assert (counted == self.holders).all()
        assert set(self.free) == set(np.flatnonzero(counted == 0).tolist())


class Table:
    """The blocks of one row in order: position p lies in blocks[p // BLOCK]."""

    __slots__ = ("behind", "blocks", "pool")

    def __init__(self, pool: BlockPool, blocks: list[int] | None = None) -> None:
        self.pool = pool
        self.blocks = blocks or []
        self.behind = 0  # blocks at the start that were given up, since no window reaches them

    def missing(self, first: int, end: int) -> int:
        """How many blocks `write` would take for positions [first, end)."""
        shared = (
            first % BLOCK != 0
            and first // BLOCK < len(self.blocks)
            and self.pool.holders[self.blocks[first // BLOCK]] > 1
        )
        return max(0, blocks_for(end) - len(self.blocks)) + bool(shared)

    def write(self, first: int, end: int) -> tuple[int, int] | None:
        """Makes [first, end) writable; returns (source, target) of the block that must be copied first, if one must."""
        copy = None
        tail = first // BLOCK
        self.truncate_blocks(blocks_for(first))
        if first % BLOCK and self.pool.holders[self.blocks[tail]] > 1:
            copy = (self.blocks[tail], self.pool.take())
            self.pool.release(copy[0])
            self.blocks[tail] = copy[1]
        while len(self.blocks) < blocks_for(end):
            self.blocks.append(self.pool.take())
        return copy

    def fork(self, length: int) -> Table:
        """A second table over the first `length` positions; nothing is copied until one of the two writes."""
        blocks = self.blocks[: blocks_for(length)]
        for block in blocks[self.behind :]:
            self.pool.hold(block)
        twin = Table(self.pool, list(blocks))
        twin.behind = min(self.behind, len(blocks))
        return twin

    def adopt(self, prefix: Table) -> None:
        """Takes another table's blocks, which is nobody's then, in place of as many of its first."""
        count = len(prefix.blocks)
        for block in self.blocks[self.behind : count]:
            self.pool.release(block)
        self.blocks[:count], self.behind = prefix.blocks, prefix.behind

    def serves(self, position: int) -> bool:
        """Whether all is there that `position` sees."""
        window = self.pool.window
        return self.behind == 0 or (window is not None and self.behind * BLOCK <= max(0, position - window + 1))

    def give_up(self, position: int) -> None:
        """Gives back the blocks that no position from this one on sees; their places in the list stay, as 0."""
        if self.pool.window is None:
            return
        count = min(max(0, position - self.pool.window + 1) // BLOCK, len(self.blocks))
        for place in range(self.behind, count):
            self.pool.release(self.blocks[place])
            self.blocks[place] = 0
        self.behind = max(self.behind, count)

    def truncate(self, length: int) -> None:
        """Gives back the blocks behind the first `length` positions."""
        self.truncate_blocks(blocks_for(length))

    def truncate_blocks(self, count: int) -> None:
        while len(self.blocks) > count:
            block = self.blocks.pop()
            if len(self.blocks) >= self.behind:
                self.pool.release(block)
        self.behind = min(self.behind, len(self.blocks))
