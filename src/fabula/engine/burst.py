"""Bursts: many steps of the same rows in one call of the model, where nobody needs a token before the last one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from fabula.decoding.closed import ClosedRow, ClosedRows, Form, close
from fabula.decoding.recipe import Recipe
from fabula.engine.group import Group
from fabula.engine.row import Row
from fabula.engine.scheduler import Plan, Scheduler
from fabula.ops.protocol import Batch

__all__ = ["LONGEST", "Burst", "Bursts", "HasBurst"]

LONGEST = 64  # steps: new requests, and whoever wants to cancel one, wait so long


class HasBurst(Protocol):
    """A model that can run many steps by itself; `takes_burst` of recipes may say that it cannot for some."""

    def burst(self, batch: Batch, cache: Any, form: Form, rows: ClosedRows) -> Sequence[np.ndarray]:
        """The new tokens of each row, as `decoding.closed.decode` finds them; the batch is the first step's.

        The cache then holds, of each row, one position for each of its new tokens, beginning with the batch's.
        """


class Burst(Protocol):
    """`HasBurst.burst` of a model."""

    def __call__(self, batch: Batch, cache: Any, form: Form, rows: ClosedRows) -> Sequence[np.ndarray]: ...


class Bursts:
    """Finds out which plans can be a burst, and prepares their rows."""

    def __init__(self, model: Any) -> None:
        self.model = model  # perhaps a weak proxy, whose methods would hold what it stands for
        self._refused: Plan | None = None  # which has been looked at
        self._paused = False

    @property
    def burst(self) -> Burst | None:
        """The model's, if it has one."""
        return getattr(self.model, "burst", None)

    def pause(self) -> None:
        """The next step is no burst: a row got no token in the last one, and an ordinary step says why."""
        self._paused = True

    def forget(self) -> None:
        """Nothing is held of the rows that went on."""
        self._refused, self._paused = None, False

    def prepare(self, plan: Plan, scheduler: Scheduler) -> tuple[Form, ClosedRows] | None:
        """What the plan's rows go on with, their blocks reserved; None where the plan is one step."""
        paused, self._paused = self._paused, False
        if self.burst is None or paused or plan is self._refused:
            return None
        if not (plan.steady and len(plan.groups) == len(scheduler.running) and self._can(plan.groups)):
            self._refused = plan
            return None
        rooms = [min(LONGEST, _room(group)) for group in plan.groups]
        while max(rooms) > 1:
            if scheduler.reserve_ahead(plan, rooms):
                rows = [_closed_row(*pair) for pair in zip(plan.groups, rooms, strict=True)]
                return close(rows, hurried=bool(scheduler.waiting))
            rooms = [min(room, max(rooms) // 2) for room in rooms]
        return None

    def _can(self, groups: Sequence[Group]) -> bool:
        takes: Callable[[list[Recipe]], bool] = getattr(self.model, "takes_burst", lambda recipes: True)
        return all(map(_is_closed, groups)) and takes([group.request.recipe for group in groups])


def _is_closed(group: Group) -> bool:
    """Whether the group's row needs nobody to go on, and nobody waits for each of its tokens."""
    request, row = group.request, group.rows[0]
    alone = request.negative is None and request.memory is None and row.vectors is None
    return alone and request.recipe.is_closed and not getattr(request.sink, "streams", True)


def _room(group: Group) -> int:
    return group.request.recipe.limits.max_length - group.rows[0].length


def _closed_row(group: Group, room: int) -> ClosedRow:
    row: Row = group.rows[0]
    tokens = row.tokens[: row.length]
    seed, recipe = group.request.seed, group.request.recipe
    return ClosedRow(tokens, row.prompt_length, row.blind, room, seed, row.stream, recipe)
