"""Rows of a batch with different processors: those with numbers become one, others run on their rows only."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.processors.processor import LogitsProcessor, apply, column

__all__ = ["Everywhere", "Masked", "Process", "Stacked", "aligned", "key_of", "select", "stack"]

Process = Callable[[Any, Context], Any]  # (scores Float["R V"], context of the R rows) -> scores
MOST = 64  # choices of rows whose processors are remembered


@dataclass(frozen=True, slots=True)
class Everywhere:
    """One processor over all rows, with numbers under which rows that lack it stay as they are."""

    processor: Any

    def __call__(self, scores: Any, context: Context) -> Any:
        return apply(self.processor, scores, context)


@dataclass(frozen=True, slots=True)
class Masked:
    """One processor over all rows, of which some take its scores."""

    processor: Any
    chosen: Any  # Bool["R 1"], of the host or of the scores' framework

    def __call__(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        processed = apply(self.processor, scores, context)
        return scores if processed is scores else xp.where(column(xp, self.chosen, "bool", scores), processed, scores)


@dataclass(frozen=True, slots=True)
class Partial:
    """One processor that is given only its rows."""

    processor: Any
    rows: np.ndarray  # Int["N"]

    def __call__(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        rows = xp.asarray(self.rows, "int32", like=scores)
        last = getattr(self.processor, "acts_until", None)
        if last is not None and xp.surely_none(xp.take(context.lengths, rows) <= last):
            return scores
        own = xp.take(scores, rows)
        processed = apply(self.processor, own, select(context, rows))
        return scores if processed is own else xp.set_rows(scores, rows, processed)


@dataclass(frozen=True, slots=True, eq=False)
class Stacked:
    """The processors of R rows as one function: (scores Float["R V"], context) -> scores."""

    per_row: Sequence[Sequence[Any]]
    steps: Sequence[Process]
    parts: dict[tuple[int, ...], Stacked] = field(default_factory=dict)  # of some rows, by whose processors they are

    def __call__(self, scores: Any, context: Context) -> Any:
        for step in self.steps:
            scores = step(scores, context)
        return scores

    def of(self, rows: np.ndarray) -> Stacked:
        """Those of some rows, Int["N"]; where the same ones were asked for before, the same function."""
        if not self.steps:
            return self
        chosen = [self.per_row[row] for row in rows.tolist()]
        key = tuple(map(id, chosen))
        if key not in self.parts:
            if len(self.parts) == MOST:
                self.parts.clear()
            self.parts[key] = stack(chosen)
        return self.parts[key]


def stack(per_row: Sequence[Sequence[Any]]) -> Stacked:
    """One function for all rows, from each row's processors; every row's order is kept.

    Build it when the rows change, not every step.
    """
    if all(processors is per_row[0] for processors in per_row):
        return Stacked(per_row, [Everywhere(processor) for processor in per_row[0]])
    return Stacked(per_row, [_step(members) for members in aligned(per_row)])


def select(context: Context, rows: Any) -> Context:
    """The context of some rows, Int["N"] in its framework."""
    xp = arrays.of(context.tokens)
    return replace(
        context,
        tokens=xp.take(context.tokens, rows),
        lengths=xp.take(context.lengths, rows),
        prompt_lengths=xp.take(context.prompt_lengths, rows),
        seen=None if context.seen is None else xp.take(context.seen, rows),
        unconditional=None if context.unconditional is None else xp.take(context.unconditional, rows),
    )


def key_of(processor: Any) -> Hashable:
    """What processors of different rows must share to be applied as one."""
    shared = processor.stack_key() if isinstance(processor, LogitsProcessor) else None
    return id(processor) if shared is None else (type(processor), shared)


def aligned(per_row: Sequence[Sequence[Any]], key: Callable[[Any], Hashable] = key_of) -> list[list[Any]]:
    """Columns of processors of one key, one a row or None, so that each row meets its own in their order.

    Of the processors that are next in some row, first comes one that no row has further on.
    """
    columns = []
    left = [[(key(processor), processor) for processor in processors] for processors in per_row]
    while any(left):
        heads = [row[0][0] for row in left if row]
        further = {own for row in left for own, _ in row[1:]}
        chosen = next((own for own in heads if own not in further), heads[0])
        columns.append([row.pop(0)[1] if row and row[0][0] == chosen else None for row in left])
    return columns


def _step(members: Sequence[Any]) -> Process:
    """A column as a function of all rows."""
    chosen = np.array([member is not None for member in members])
    first = next(member for member in members if member is not None)
    if isinstance(first, LogitsProcessor) and first.stack_key() is not None:
        if first.numbers:
            return Everywhere(_with_numbers(first, members))
        return Everywhere(first) if chosen.all() else Masked(first, chosen[:, None])
    return Everywhere(first) if chosen.all() else Partial(first, np.flatnonzero(chosen).astype(np.int32))


def _with_numbers(first: LogitsProcessor, members: Sequence[Any]) -> LogitsProcessor:
    """A copy of the first whose numbers are those of all rows: a number if they are equal, else ["R 1"]."""
    stacked = copy(first)
    for name, neutral in first.numbers.items():
        values = [neutral if member is None else getattr(member, name) for member in members]
        same = all(value == values[0] for value in values)
        setattr(stacked, name, values[0] if same else np.array(values)[:, None])
    return stacked
