"""Who chooses in a turn: each row once, and once more for each draft, as if the drafts before it stood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.decoding.strategy import Draw
from fabula.engine.row import Row


@dataclass(frozen=True, slots=True)
class Seats:
    """S places of a turn; a row with K drafts has K + 1 of them, one behind the other."""

    distinct: list[Row]
    rows: list[Row]  # S
    owners: list[int]  # S: the place in `distinct` of each row
    lengths: list[int]  # S: how many of the row's tokens count at this place
    spans: list[tuple[int, int]]  # for each of `distinct`, its places
    outputs: np.ndarray | None  # Int["S"]: where the outputs lie among the pass's; None: they are all of them
    computed: dict[int, tuple[int, int]]  # id(row) -> all outputs of a row of the pass, in the pass's order

    def take(self, values: Any) -> Any:
        """Float["S ..."] of these places, from a pass's Float["N ..."]."""
        if self.outputs is None:
            return values
        xp = arrays.of(values)
        return xp.take(values, xp.asarray(self.outputs, "int32", like=values))

    def advance(self) -> None:
        """The same rows without drafts, a token further."""
        self.lengths[:] = [row.length for row in self.rows]

    def outputs_of(self, place: int) -> tuple[int, int]:
        """Where the outputs lie that are a place's own: all of a prompt's at its first turn, later one position's."""
        row = self.rows[place]
        first, end = self.computed[id(row)]
        depth = place - self.spans[self.owners[place]][0]
        own = end - row.tail + depth
        return first if row.scored_from is not None and depth == 0 else own, own + 1

    def draw(self, seeds: Sequence[int], sampled: Sequence[bool]) -> Draw:
        """The keys of the places' random bits."""
        return Draw.of(seeds, [row.stream for row in self.rows], self.lengths, sampled)


def seats_of(rows: list[Row], spans: dict[int, tuple[int, int]]) -> Seats:
    """The places of these rows, whose outputs are at `spans` of a pass; only the last ones of each say what is next."""
    places = [spans[id(row)] for row in rows]
    if all(row.drafts == 0 for row in rows):
        every = range(len(rows))
        last = _places_of([end - 1 for _, end in places], spans)
        return Seats(rows, rows, list(every), [row.length for row in rows], [(i, i + 1) for i in every], last, spans)
    owners = [place for place, row in enumerate(rows) for _ in range(row.tail)]
    outputs = [place for row, (_, end) in zip(rows, places, strict=True) for place in range(end - row.tail, end)]
    ends = list(accumulate(row.tail for row in rows))
    return Seats(
        rows,
        [rows[owner] for owner in owners],
        owners,
        [row.length + depth for row in rows for depth in range(row.tail)],
        [(end - row.tail, end) for row, end in zip(rows, ends, strict=True)],
        _places_of(outputs, spans),
        spans,
    )


def _places_of(outputs: list[int], spans: dict[int, tuple[int, int]]) -> np.ndarray | None:
    """Int["S"], or None if these are all of the pass's outputs, in their order."""
    total = next(reversed(spans.values()))[1]
    return None if outputs == list(range(total)) else np.array(outputs, np.int32)


class Pieces(Sequence[Any]):
    """Parts of an array, made where they are looked at."""

    def __init__(self, values: Any, spans: Sequence[tuple[int, int]]) -> None:
        self._values = values
        self._spans = spans

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: Any) -> Any:
        first, end = self._spans[index]
        return self._values[first:end]


class Board:
    """The rows' tokens side by side; as long as the same texts go on, only what is new is written.

    A row that many turns have made another text, as in bursts of beams, has another array of tokens.
    """

    def __init__(self) -> None:
        self._texts: list[np.ndarray] = []
        self._lengths: list[int] = []
        self._tokens = np.zeros((0, 0), np.int32)

    def context(self, seats: Seats, like: Any, unconditional: Any = None) -> Context:
        """What processors may know of the places, as arrays where `like` is."""
        lengths = [length - row.blind for row, length in zip(seats.rows, seats.lengths, strict=True)]
        self._write(seats, lengths)
        xp = arrays.of(like)
        parts = (
            self._tokens[:, : max(lengths)],
            np.array(lengths, np.int32),
            np.array([row.prompt_length - row.blind for row in seats.rows], np.int32),
        )
        tokens, lengths, prompts = (xp.asarray(part, "int32", like=like) for part in parts)
        return Context(tokens, lengths, prompts, unconditional=unconditional)

    def _write(self, seats: Seats, lengths: list[int]) -> None:
        rows = seats.rows
        if len(seats.distinct) == len(rows) == len(self._texts) and all(map(_continues, rows, self._texts)):
            before = self._lengths
        else:
            self._tokens = np.zeros((len(rows), max(len(row.tokens) for row in rows)), np.int32)
            before = [0] * len(rows)
        for place, (row, start, end) in enumerate(zip(rows, before, lengths, strict=True)):
            self._tokens[place, start:end] = row.tokens[row.blind + start : row.blind + end]
        drafted = len(seats.distinct) != len(rows)
        self._texts, self._lengths = ([], []) if drafted else ([row.tokens for row in rows], list(lengths))


def _continues(row: Row, text: np.ndarray) -> bool:
    return row.tokens is text
