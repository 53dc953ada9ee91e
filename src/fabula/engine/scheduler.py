"""Which rows compute how many positions in the next step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fabula.cache.blocks import BLOCK, BlockPool
from fabula.engine.group import Group
from fabula.engine.row import Row
from fabula.errors import OutOfMemoryError


@dataclass(eq=False, slots=True)
class Plan:
    """One step: rows with how many positions each computes, and what to copy first."""

    work: list[tuple[Row, int]] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)  # whose rows these are
    ready: list[Group] = field(default_factory=list)  # those that choose after it
    copies: list[tuple[int, int]] = field(default_factory=list)  # blocks (source, target)

    @property
    def steady(self) -> bool:
        """Whether each row computes its last token, and each chooses for itself."""
        return len(self.ready) == len(self.work) and not self.copies and all(count == 1 for _, count in self.work)


class Scheduler:
    """First come, first served: rows that choose go first, prefill takes what is left of the step, in chunks."""

    def __init__(self, pool: BlockPool, grow: Callable[[int], bool], *, tokens: int = 512, rows: int = 256) -> None:
        self.pool = pool
        self.grow = grow  # asked for so many more blocks; False if there is no room
        self.tokens = tokens  # positions a step
        self.rows = rows  # rows that hold cache at once
        self.waiting: deque[Group] = deque()
        self.running: list[Group] = []  # oldest first
        self._last: Plan | None = None  # of the last step, if the same groups are running and it was steady

    def add(self, group: Group) -> None:
        """Queues a group."""
        self.waiting.append(group)

    def remove(self, group: Group) -> None:
        """Ends a group, wherever it is."""
        self._last = None
        if group in self.running:
            self.running.remove(group)
            group.release()
        elif group in self.waiting:
            self.waiting.remove(group)

    def moved(self, group: Group) -> None:
        """Told when a search's rows have changed."""
        self._last = None

    def start_over(self) -> None:
        """Takes all groups' cache away: what a step computed for them was lost."""
        while self.running:
            self._preempt(self.running[-1])

    def plan(self) -> Plan:
        """The next step; the same object as long as the same rows go on, a token each.

        Raises OutOfMemoryError when the oldest group does not fit even alone.
        """
        self.admit()
        if self._last is not None and self._goes_on(self._last):
            return self._last
        plan = Plan()
        budget = self.tokens
        for group in sorted(self.running, key=_computes_more_than_its_tails):
            work, ready = self._share(group, budget, first=not plan.work or group is self.running[0])
            if work and group in self.running and self._reserve(group, work, plan):
                plan.work += work
                plan.groups.append(group)
                plan.ready += [group] if ready else []
                budget = max(0, budget - sum(count for _, count in work))
        self._last = plan if plan.steady and len(plan.ready) == len(self.running) else None
        return plan

    def reserve_ahead(self, plan: Plan, counts: Sequence[int]) -> bool:
        """Gives each row of a steady plan blocks for so many positions; False if they are not free."""
        work = [(row, count) for (row, _), count in zip(plan.work, counts, strict=True)]
        while (need := self._missing_blocks(work)) > 0:
            if not self.grow(need):
                return False
        self._last = None  # its tables are not those of the rows any more
        self._write(work, plan)
        return True

    def _goes_on(self, plan: Plan) -> bool:
        """Whether each of its rows has again one position to compute, and room for it."""
        return all(row.missing == 1 and row.length <= row.writable for row, _ in plan.work)

    def admit(self) -> None:
        """Starts the groups that wait, as far as there is room for more rows."""
        if not self.waiting:
            return
        held = sum(group.width for group in self.running)
        for group in list(self.waiting):
            leader = group.leader
            if held + group.width > self.rows and self.running:
                return
            if leader is not None and leader in self.running and leader.rows[0].computed < group.rows[0].length:
                continue  # its prompt is being computed
            if leader is not None and leader in self.waiting:
                continue
            self.waiting.remove(group)
            group.start()
            self._last = None
            self.running.append(group)
            held += group.width

    def _share(self, group: Group, budget: int, first: bool) -> tuple[list[tuple[Row, int]], bool]:
        """What the group computes within the budget, and whether it can choose then: all its rows end together."""
        rows = [row for row in group.members if row.missing > 0]
        if group.drafts_first and any(row.missing > row.tail for row in rows):
            return self._cut([(row, budget) for row in rows], budget), False
        chunk = group.request.chunk
        if chunk is not None and any(row.missing > max(chunk, row.tail) and not row.at_once for row in rows):
            return self._cut([(row, chunk) for row in rows if not row.at_once], budget), False
        missing = sum(row.missing for row in rows)
        whole = all(row.missing <= row.tail or row.at_once for row in rows)
        if missing <= budget or (first and whole):
            return [(row, row.missing) for row in rows], missing > 0
        if len(group.members) == 1 and not whole:
            return ([(rows[0], budget)] if budget else []), False
        return self._cut([(row, budget) for row in rows if not row.at_once], budget), False

    def _cut(self, rows: list[tuple[Row, int]], budget: int) -> list[tuple[Row, int]]:
        """What the rows compute of all but their tails, each as much as it may, within the budget."""
        work = []
        for row, most in rows:
            count = min(row.missing - row.tail, most, budget)
            if count > 0:
                work.append((row, count))
                budget -= count
        return work

    def _reserve(self, group: Group, work: list[tuple[Row, int]], plan: Plan) -> bool:
        """Gives the rows the blocks that they are about to write, at the cost of younger groups; False: not now."""
        while (need := self._missing_blocks(work)) > 0:
            if self.grow(need):
                continue
            victim = next(other for other in reversed(self.running) if other not in plan.groups)
            if victim is not self.running[0]:
                self._preempt(victim)
            elif not plan.work:
                raise OutOfMemoryError(
                    f"{_size(group)} does not fit in the cache of {self.pool.blocks * BLOCK} positions"
                )
            if victim is group:
                return False
        self._write(work, plan)
        return True

    def _write(self, work: list[tuple[Row, int]], plan: Plan) -> None:
        """Makes what the rows are about to compute writable; there are blocks for it."""
        for row, count in work:
            copy = row.table.write(row.computed, row.computed + count)
            row.writable = len(row.table.blocks) * BLOCK
            if copy is not None:
                plan.copies.append(copy)

    def _missing_blocks(self, work: list[tuple[Row, int]]) -> int:
        return sum(row.table.missing(row.computed, row.computed + count) for row, count in work) - len(self.pool.free)

    def _preempt(self, group: Group) -> None:
        self._last = None
        self.running.remove(group)
        group.release()
        group.preempted += 1
        self.waiting.appendleft(group)


def _size(group: Group) -> str:
    rows = group.members
    length = max(row.length for row in rows)
    return f"a row of {length} positions" if len(rows) == 1 else f"a text of {len(rows)} rows of {length} positions"


def _computes_more_than_its_tails(group: Group) -> bool:
    return any(row.missing > row.tail for row in group.members)
