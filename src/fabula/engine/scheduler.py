"""Which rows compute how many positions in the next step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from fabula.cache.blocks import BLOCK, BlockPool
from fabula.engine.row import Row
from fabula.errors import OutOfMemoryError


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: rows with how many positions each computes, and the blocks to copy first."""

    work: list[tuple[Row, int]]
    copies: list[tuple[int, int]]  # (source, target)


class Scheduler:
    """First come, first served: rows that choose go first, prefill takes what is left of the step, in chunks."""

    def __init__(self, pool: BlockPool, grow: Callable[[int], bool], *, tokens: int = 512, rows: int = 256) -> None:
        self.pool = pool
        self.grow = grow  # asked for so many more blocks; False if there is no room
        self.tokens = tokens  # positions a step
        self.rows = rows  # rows that hold cache at once
        self.waiting: deque[Row] = deque()
        self.running: list[Row] = []  # oldest first

    def add(self, row: Row) -> None:
        """Queues a row."""
        self.waiting.append(row)

    def remove(self, row: Row) -> None:
        """Ends a row, wherever it is."""
        if row in self.running:
            self.running.remove(row)
            row.release()
        elif row in self.waiting:
            self.waiting.remove(row)

    def plan(self) -> Plan:
        """The next step. Raises OutOfMemoryError when the oldest row does not fit even alone."""
        self._admit()
        plan = Plan([], [])
        budget = self.tokens
        for row in sorted(self.running, key=lambda row: row.missing > 1):
            count = min(row.missing, budget)
            if count > 0 and row in self.running and self._reserve(row, count, plan):
                budget -= count
        return plan

    def _admit(self) -> None:
        for row in list(self.waiting):
            if len(self.running) >= self.rows:
                return
            if row.leader is not None and row.leader in self.running and row.leader.computed < row.length:
                continue  # its prompt is being computed
            if row.leader is not None and row.leader in self.waiting:
                continue
            self.waiting.remove(row)
            row.start()
            self.running.append(row)

    def _reserve(self, row: Row, count: int, plan: Plan) -> bool:
        """Gives the row the blocks that it is about to write, at the cost of younger rows; False: not in this step."""
        while (need := row.table.missing(row.computed, row.computed + count) - len(self.pool.free)) > 0:
            if self.grow(need):
                continue
            planned = [planned_row for planned_row, _ in plan.work]
            victim = next(other for other in reversed(self.running) if other not in planned)
            if victim is not self.running[0]:
                self._preempt(victim)
            elif not planned:
                raise OutOfMemoryError(
                    f"a row of {row.length} positions does not fit in the cache of {self.pool.blocks * BLOCK} positions"
                )
            if victim is row:
                return False
        copy = row.table.write(row.computed, row.computed + count)
        if copy is not None:
            plan.copies.append(copy)
        plan.work.append((row, count))
        return True

    def _preempt(self, row: Row) -> None:
        self.running.remove(row)
        row.release()
        row.preempted += 1
        self.waiting.appendleft(row)
