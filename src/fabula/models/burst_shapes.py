"""A burst as arrays of few shapes, for backends that compile a loop for each shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fabula.cache.blocks import BLOCK, blocks_for
from fabula.decoding.closed import ClosedRows, padded
from fabula.engine.burst import LONGEST
from fabula.ops.protocol import Batch
from fabula.ops.rectangles import LEAST_BLOCKS, bucket

__all__ = ["Shaped", "shaped"]

FEW = 16  # blocks
SPARE = 4  # a loop serves down to a fourth of the rows, or of the blocks, that it is compiled for


@dataclass(frozen=True, slots=True)
class Shaped:
    """R rows over B blocks each: a loop of theirs reads and writes positions [0, B * BLOCK). On the host."""

    rows: ClosedRows  # R, of which those behind the batch's have ended, over L = B * BLOCK columns
    tables: np.ndarray  # Int["R B"]: the blocks of each row, in order; unused entries 0
    first: np.ndarray  # Int["R"]: the position that each row computes first

    @property
    def steps(self) -> int:
        """K: the most positions that a row computes."""
        return min(LONGEST, self.tables.shape[1] * BLOCK)

    def slots(self, counts: np.ndarray, nowhere: int) -> np.ndarray:
        """Int["R K"]: block * BLOCK + place of each row's first `counts` Int["R"] new positions; of more, `nowhere`."""
        steps = np.arange(self.steps)
        places = np.minimum(self.first[:, None] + steps, self.tables.shape[1] * BLOCK - 1)
        slots = np.take_along_axis(self.tables, places // BLOCK, 1) * BLOCK + places % BLOCK
        return np.where(steps < counts[:, None], slots, nowhere).astype(np.int32)


def shaped(batch: Batch, rows: ClosedRows, compiled: Iterable[tuple[int, int]] = ()) -> Shaped:
    """The rows of a burst, whose batch is its first step's: R and B are powers of two.

    A text of up to FEW blocks has all of them from its first burst on, so that one loop serves it to its end; and a
    loop that is `compiled` for some R and B serves fewer rows and blocks too, if not much of it is wasted.
    """
    count = len(batch.first)
    needed, most = blocks_for(int((batch.first + rows.room).max())), blocks_for(int(rows.longest.max()))
    height, width = bucket(count), bucket(max(needed, min(most, FEW)), LEAST_BLOCKS)
    serving = [pair for pair in compiled if count <= pair[0] <= SPARE * height and needed <= pair[1] <= SPARE * width]
    if (height, width) not in serving and serving:
        height, width = min(serving, key=lambda pair: pair[0] * pair[1])
    tables, first = np.zeros((height, width), np.int32), np.zeros(height, np.int32)
    taken = min(width, batch.tables.shape[1])
    tables[:count, :taken], first[:count] = batch.tables[:, :taken], batch.first
    return Shaped(padded(rows, height, width * BLOCK), tables, first)
