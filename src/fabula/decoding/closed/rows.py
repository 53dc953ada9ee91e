"""Rows that need nobody but the device for many tokens: all that decides how they go on, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from fabula.arrays.random import split_seed
from fabula.decoding.layer_contrast import LayerContrast
from fabula.decoding.recipe import Compilation, Recipe, Record
from fabula.processors.columns import Column, Numbers, columns_of

__all__ = [
    "ClosedRow",
    "ClosedRows",
    "Form",
    "close",
    "leaves_of",
    "map_arrays",
    "padded",
]


@dataclass(frozen=True, slots=True)
class Form:
    """What a loop is compiled for, beside the shapes of its arrays; equal forms are one loop."""

    columns: tuple[Column, ...]  # the rows' processors
    draws: bool  # whether some row draws
    each: int  # rows of the model's to each row: two where there is the same text after a negative prompt
    contrast: LayerContrast | None  # how all rows choose, if not by the last layer alone
    record: Record  # of log-probabilities, scores and logits: what is kept of some row's turns
    compiled: Compilation | None = None  # how PyTorch shall compile the model's forward, if all rows ask for the same

    @property
    def layers(self) -> tuple[int, ...]:
        """After which so many layers the head is asked too."""
        return () if self.contrast is None else self.contrast.layers


@dataclass(frozen=True, slots=True)
class ClosedRows:
    """R rows, and all numbers that decide how they go on; NumPy arrays on the host, or a framework's in its loop.

    The model computes M = R of them, or M = 2 * R: each row, and behind it the same new tokens after a negative prompt.
    """

    tokens: Any  # Int["R L"]: what processors may see, prompt first, with room for all new tokens
    lengths: Any  # Int["R"]: how many of those count
    prompt_lengths: Any  # Int["R"]: how many of them are the prompt
    hidden: Any  # Int["R"]: tokens before them that nobody may see
    last: Any  # Int["M"]: the last token, which the model computes next
    position: Any  # Int["M"]: where
    room: Any  # Int["R"]: the most new tokens
    longest: Any  # Int["R"]: how long the row may become later on, hidden tokens included; shapes are chosen by it
    ends: Any  # Int["R E"]: the tokens that end a row; -1 is none
    sampled: Any  # Bool["R"]: rows that draw; the others take the best token
    seed_low: Any  # Int["R"]: the rows' seeds, as arrays/random.py splits them
    seed_high: Any  # Int["R"]
    stream: Any  # Int["R"]
    hurried: Any  # Bool["1"]: whether the loop ends with the first row that ends
    numbers: tuple[Numbers, ...]  # of each of the form's columns


@dataclass(frozen=True, slots=True)
class ClosedRow:
    """One row on the host."""

    tokens: np.ndarray  # Int["L"], those that nobody may see first
    prompt_length: int
    hidden: int
    room: int
    seed: int
    stream: int
    recipe: Recipe
    negative: np.ndarray | None = None  # Int["N"]: a negative prompt and the row's new tokens

    @property
    def texts(self) -> list[np.ndarray]:
        """What the model computes for it."""
        return [self.tokens] if self.negative is None else [self.tokens, self.negative]

    @property
    def contrast(self) -> LayerContrast | None:
        """How it chooses, if not by the last layer alone."""
        return self.recipe.strategy if isinstance(self.recipe.strategy, LayerContrast) else None

    @property
    def longest(self) -> int:
        """How long its texts may become."""
        return self.recipe.limits.max_length + max(len(text) - len(self.tokens) for text in self.texts)


def close(rows: Sequence[ClosedRow], hurried: bool = False) -> tuple[Form, ClosedRows] | None:
    """The rows as arrays; None where they choose in different ways, or where one of them needs the host to choose.

    That is so if a processor works only on rows of its own or looks at numbers on the host.
    """
    found = columns_of([row.recipe.processors for row in rows])
    ways = {(len(row.texts), row.contrast) for row in rows}
    if found is None or len(ways) > 1:
        return None
    (columns, numbers), (each, contrast) = found, ways.pop()
    texts = [text for row in rows for text in row.texts]
    seeds = np.array([split_seed(row.seed) for row in rows], np.int32)
    closed = ClosedRows(
        tokens=_matrix([row.tokens[row.hidden :] for row in rows], max(_end(row) for row in rows), 0),
        lengths=_whole(len(row.tokens) - row.hidden for row in rows),
        prompt_lengths=_whole(row.prompt_length - row.hidden for row in rows),
        hidden=_whole(row.hidden for row in rows),
        last=_whole(text[-1] for text in texts),
        position=_whole(len(text) - 1 for text in texts),
        room=_whole(row.room for row in rows),
        longest=_whole(row.longest for row in rows),
        ends=_matrix([sorted(row.recipe.limits.eos) for row in rows], 1, -1),
        sampled=np.array([row.recipe.sampled for row in rows]),
        seed_low=seeds[:, 0],
        seed_high=seeds[:, 1],
        stream=_whole(row.stream for row in rows),
        hurried=np.array([hurried]),
        numbers=numbers,
    )
    record = _together([row.recipe.record for row in rows])
    compiled = {row.recipe.compiled for row in rows}
    same = compiled.pop() if len(compiled) == 1 else None
    return Form(columns, bool(closed.sampled.any()), each, contrast, record, same), closed


def map_arrays(rows: ClosedRows, function: Callable[[np.ndarray], Any]) -> ClosedRows:
    """The same with each array as the function makes it, such as a framework's."""
    numbers = tuple({name: function(value) for name, value in own.items()} for own in rows.numbers)
    parts = {each.name: function(getattr(rows, each.name)) for each in fields(rows) if each.name != "numbers"}
    return ClosedRows(**parts, numbers=numbers)


def leaves_of(rows: ClosedRows) -> tuple[list[np.ndarray], Callable[[Sequence[Any]], ClosedRows]]:
    """All arrays of the rows, and what makes rows of others in their places: what a compiled function takes."""
    leaves: list[np.ndarray] = []
    map_arrays(rows, lambda part: leaves.append(part))
    names = [tuple(own) for own in rows.numbers]

    def rebuild(others: Sequence[Any]) -> ClosedRows:
        rest = iter(others)
        numbers = tuple({name: next(rest) for name in own} for own in names)
        return ClosedRows(**{each.name: next(rest) for each in fields(rows) if each.name != "numbers"}, numbers=numbers)

    return leaves, rebuild


def padded(rows: ClosedRows, count: int, width: int) -> ClosedRows:
    """The same with `count` rows, of which the new ones have ended, over `width` columns; end tokens in powers of 2."""
    most_ends = 1 << (rows.ends.shape[1] - 1).bit_length()
    wider = replace(
        rows,
        tokens=np.pad(rows.tokens, ((0, 0), (0, width - rows.tokens.shape[1]))),
        ends=np.pad(rows.ends, ((0, 0), (0, most_ends - rows.ends.shape[1])), constant_values=-1),
    )
    more, each = count - len(rows.lengths), len(rows.last) // len(rows.lengths)
    if not more:
        return wider
    parts = {name: np.pad(getattr(wider, name), _below(getattr(wider, name), more)) for name in _EACH}
    parts |= {name: np.pad(getattr(wider, name), (0, more * each)) for name in _COMPUTED}
    numbers = tuple({name: _repeated(value, more) for name, value in own.items()} for own in rows.numbers)
    return replace(wider, numbers=numbers, **parts)


_EACH = (  # what has an entry a row, and is 0 or False in a row that has ended
    "tokens",
    "lengths",
    "prompt_lengths",
    "hidden",
    "room",
    "longest",
    "ends",
    "sampled",
    "seed_low",
    "seed_high",
    "stream",
)
_COMPUTED = ("last", "position")  # what has an entry for each of the model's rows


def _together(records: Sequence[Record]) -> Record:
    """What some of them want of new tokens."""
    counts = [record.log_probabilities for record in records if record.log_probabilities is not None]
    scores, logits = any(record.scores for record in records), any(record.logits for record in records)
    return Record(max(counts, default=None), scores, logits)


def _below(values: np.ndarray, more: int) -> list[tuple[int, int]]:
    return [(0, more)] + [(0, 0)] * (values.ndim - 1)


def _repeated(values: np.ndarray, more: int) -> np.ndarray:
    return np.concatenate([values, np.repeat(values[:1], more, axis=0)])


def _end(row: ClosedRow) -> int:
    return len(row.tokens) - row.hidden + row.room


def _whole(values: Any) -> np.ndarray:
    return np.fromiter(values, np.int32)


def _matrix(rows: Sequence[Sequence[int] | np.ndarray], width: int, filler: int) -> np.ndarray:
    matrix = np.full((len(rows), max(width, *map(len, rows))), filler, np.int32)
    for place, row in enumerate(rows):
        matrix[place, : len(row)] = row
    return matrix
