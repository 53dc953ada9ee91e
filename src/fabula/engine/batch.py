"""A plan as arrays: the tokens, positions and tables that one forward pass computes."""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from fabula.engine.row import Row
from fabula.ops.protocol import Batch


def build_batch(work: list[tuple[Row, int]]) -> tuple[Batch, list[Row]]:
    """The batch of a plan, and the rows that choose after it, in the order of its scored positions."""
    choosing = [
        (row, end)
        for (row, count), end in zip(work, accumulate(count for _, count in work), strict=True)
        if count == row.missing
    ]
    batch = Batch(
        tokens=_tokens(work),
        starts=np.array([0, *accumulate(count for _, count in work)], np.int32),
        first=np.array([row.computed for row, _ in work], np.int32),
        tables=_tables(work),
        scored=np.array([end - 1 for _, end in choosing], np.int32),
    )
    return batch, [row for row, _ in choosing]


def _tokens(work: list[tuple[Row, int]]) -> np.ndarray:
    pieces = [row.tokens[row.computed : row.computed + count] for row, count in work]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _tables(work: list[tuple[Row, int]]) -> np.ndarray:
    width = max(len(row.table.blocks) for row, _ in work)
    tables = np.zeros((len(work), width), np.int32)
    for index, (row, _) in enumerate(work):
        tables[index, : len(row.table.blocks)] = row.table.blocks
    return tables
