"""A plan as arrays: the tokens, positions and tables that one forward pass computes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from fabula import arrays
from fabula.engine.row import Row
from fabula.engine.scheduler import Plan
from fabula.ops.protocol import Batch


@dataclass(frozen=True, slots=True)
class Built:
    """A batch, and where each row's outputs are among the scored ones."""

    batch: Batch
    spans: dict[int, tuple[int, int]]  # id(row) -> its outputs are [first, end)


class Builder:
    """Makes batches; as long as a plan goes on, the same arrays serve, a position further."""

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._built: Built | None = None

    def build(self, plan: Plan) -> Built:
        """The plan's batch; its arrays are valid until the next is built."""
        if plan is self._plan and self._built is not None:
            _advance(plan, self._built.batch)
        else:
            self._built = _build(plan.work)
            self._plan = plan if plan.steady and self._built.batch.vectors is None else None
        return self._built


def batch_of(plan: Plan) -> Batch:
    """The plan's batch, made anew."""
    return _build(plan.work).batch


def _advance(plan: Plan, batch: Batch) -> None:
    """The next position of the same rows."""
    tokens, first = batch.tokens, batch.first
    for place, (row, _) in enumerate(plan.work):
        tokens[place] = row.tokens[row.computed]
        first[place] = row.computed


def _build(work: list[tuple[Row, int]]) -> Built:
    ends = list(accumulate(count for _, count in work))
    wanted = [max(0, row.computed + count - max(row.computed, row.wanted_from)) for row, count in work]
    scored = [np.arange(end - count, end, dtype=np.int32) for end, count in zip(ends, wanted, strict=True) if count]
    last = list(accumulate(wanted))
    batch = Batch(
        tokens=np.concatenate([row.tokens[row.computed : row.computed + count] for row, count in work]),
        starts=np.array([0, *ends], np.int32),
        first=np.array([row.computed for row, _ in work], np.int32),
        tables=_tables(work),
        scored=np.concatenate(scored) if scored else np.zeros(0, np.int32),
        memories=_memories(work),
        **_vectors(work, ends),
    )
    spans = zip(work, last, wanted, strict=True)
    return Built(batch, {id(row): (end - count, end) for (row, _), end, count in spans})


def _tables(work: list[tuple[Row, int]]) -> np.ndarray:
    width = max(len(row.table.blocks) for row, _ in work)
    tables = np.zeros((len(work), width), np.int32)
    for index, (row, _) in enumerate(work):
        tables[index, : len(row.table.blocks)] = row.table.blocks
    return tables


def _memories(work: list[tuple[Row, int]]) -> tuple[Any, ...]:
    if all(row.memory is None for row, _ in work):
        return ()
    return tuple(row.memory for row, _ in work)


def _vectors(work: list[tuple[Row, int]], ends: list[int]) -> dict[str, Any]:
    """The vectors that take the place of ids, and where."""
    places, pieces = [], []
    for (row, count), end in zip(work, ends, strict=True):
        if row.vectors is None or row.computed >= len(row.vectors):
            continue
        piece = row.vectors[row.computed : row.computed + count]
        places.append(np.arange(end - count, end - count + len(piece), dtype=np.int32))
        pieces.append(piece)
    if not pieces:
        return {}
    return {"vectors": arrays.of(pieces[0]).concat(pieces, axis=0), "places": np.concatenate(places)}
