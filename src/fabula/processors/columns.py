"""Processors of many rows as a form, for which a loop is compiled once, and numbers, which it is given at each run."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fabula.context import Context
from fabula.processors.processor import LogitsProcessor
from fabula.processors.rows import Everywhere, Masked, aligned, key_of

__all__ = ["CHOSEN", "Column", "Numbers", "columns_of", "process_of"]

Process = Callable[[Any, Context], Any]  # (scores Float["R V"], context of the R rows) -> scores
Numbers = Mapping[str, Any]  # name -> ["R 1"], or ["R ..."] of lists, on the host or in the scores' framework
CHOSEN = "chosen"  # the name of the numbers that say, Bool["R 1"], which rows a processor is for


@dataclass(frozen=True, slots=True)
class Column:
    """One processor of many rows; equal to another where both make the same function of scores and numbers."""

    kind: type
    shared: Hashable  # what processors of the kind must share to be one
    names: tuple[str, ...]  # of the numbers it is given; the others have, in all rows, the value that changes nothing
    processor: LogitsProcessor = field(compare=False)  # one with that value
    looked_through: bool = False  # whether its numbers are lists that a row's turn by itself looks through

    def bind(self, numbers: Numbers) -> Process:
        """The function with these numbers."""
        bound = copy(self.processor)
        for name in self.names:
            if name != CHOSEN:
                setattr(bound, name, numbers[name])
        return Masked(bound, numbers[CHOSEN]) if CHOSEN in self.names else Everywhere(bound)


def columns_of(per_row: Sequence[Sequence[Any]]) -> tuple[tuple[Column, ...], tuple[Numbers, ...]] | None:
    """The processors of R rows, and for each their numbers on the host; None where some work only on rows of their own.

    Every row's order is kept.
    """
    if not all(_is_plain(processor) for processors in per_row for processor in processors):
        return None
    pairs = [_column(members) for members in aligned(per_row, _key)]
    return tuple(column for column, _ in pairs), tuple(numbers for _, numbers in pairs)


def process_of(columns: Sequence[Column], numbers: Sequence[Numbers]) -> Process:
    """One function for all rows."""
    steps = [column.bind(own) for column, own in zip(columns, numbers, strict=True)]

    def process(scores: Any, context: Context) -> Any:
        for step in steps:
            scores = step(scores, context)
        return scores

    return process


def _is_plain(processor: Any) -> bool:
    return isinstance(processor, LogitsProcessor) and processor.stack_key() is not None and not processor.reads_host


def _key(processor: LogitsProcessor) -> Hashable:
    """What processors of different rows must share to be one column."""
    return key_of(processor) if type(processor).listed([]) is None else (type(processor), processor.list_key())


def _column(members: Sequence[LogitsProcessor | None]) -> tuple[Column, Mapping[str, np.ndarray]]:
    """One processor a row or None, all of one key."""
    first = next(member for member in members if member is not None)
    listed = type(first).listed(members)
    if listed is not None:
        one, lists = listed
        shared = first.list_key(), tuple(part.shape[1:] for part in lists.values())
        return Column(type(first), shared, tuple(lists), one, first.looks_through), lists
    processor, numbers = copy(first), {}
    for name, neutral in first.numbers.items():
        values = [neutral if member is None else getattr(member, name) for member in members]
        setattr(processor, name, neutral)
        if any(value != neutral for value in values):
            numbers[name] = np.array(values, np.int32 if isinstance(neutral, int) else np.float32)[:, None]
    if not first.numbers and any(member is None for member in members):
        numbers[CHOSEN] = np.array([member is not None for member in members])[:, None]
    return Column(type(first), first.stack_key(), tuple(numbers), processor), numbers
