"""A burst as arrays of few shapes, for backends that compile a loop for each shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from fabula.cache.blocks import BLOCK, blocks_for
from fabula.cache.groups import reach
from fabula.decoding.closed.beams import BeamForm, ClosedBeams, padded_beams, shortened
from fabula.decoding.closed.contrastive import ClosedTexts, ContrastiveForm, fits, padded_texts
from fabula.decoding.closed.record import turns_within
from fabula.decoding.closed.rows import ClosedRows, Form, padded
from fabula.engine.burst import LONGEST
from fabula.ops.protocol import Batch
from fabula.ops.rectangles import LEAST_BLOCKS, bucket

__all__ = ["Shaped", "shaped", "shaped_beams", "shaped_texts"]

FEW = 16  # blocks
SPARE = 4  # a loop serves down to a fourth of the rows, or of the blocks, that it is compiled for


Closed = TypeVar("Closed", ClosedRows, ClosedBeams, ClosedTexts)


@dataclass(frozen=True, slots=True)
class Shaped(Generic[Closed]):
    """R rows over B blocks each: a loop of theirs reads positions [0, B * BLOCK), and writes K of them. On the host.

    They are all the rows that the model computes, those of negative prompts too.
    """

    closed: Closed  # of R rows, of which those behind the batch's have ended, over L = B * BLOCK columns
    tables: np.ndarray  # Int["R B"]: the blocks of each row, in order; unused entries 0
    first: np.ndarray  # Int["R"]: the first position that each row writes
    before: np.ndarray  # Int["R"]: how many positions it writes before the first that it computes
    most: int = LONGEST  # positions that a row may write

    @property
    def steps(self) -> int:
        """K: the most positions that a row writes."""
        return min(self.most, self.tables.shape[1] * BLOCK)

    def reach(self, window: int | None) -> tuple[np.ndarray, np.ndarray]:
        """The blocks that the burst sees within a window, Int["R C"], and where the first begins, Int["R"]."""
        return reach(self.tables, self.first, self.steps, window)

    def slots(self, counts: np.ndarray, nowhere: int) -> np.ndarray:
        """Int["R K"]: block * BLOCK + place of what a row writes, up to `counts` Int["R"] new ones; then `nowhere`."""
        steps = np.arange(self.steps)
        places = np.minimum(self.first[:, None] + steps, self.tables.shape[1] * BLOCK - 1)
        slots = np.take_along_axis(self.tables, places // BLOCK, 1) * BLOCK + places % BLOCK
        return np.where(steps < (self.before + counts)[:, None], slots, nowhere).astype(np.int32)


def shaped(
    batch: Batch, form: Form, rows: ClosedRows, vocabulary: int, compiled: Iterable[tuple[int, int]] = ()
) -> Shaped[ClosedRows]:
    """The rows of a burst, whose batch is its first step's: R and B are powers of two.

    A text of up to FEW blocks has all of them from its first burst on, so that one loop serves it to its end; and a
    loop that is `compiled` for some R and B serves fewer rows and blocks too, if not much of it is wasted.
    """
    height, width = _size(batch, rows, compiled, form.each)
    tables, first = _tables(batch, height, width)
    most = turns_within(form, height // form.each, vocabulary, LONGEST)
    shorter = replace(rows, room=np.minimum(rows.room, most))
    closed = padded(shorter, height // form.each, width * BLOCK)
    return Shaped(closed, tables, first, np.zeros_like(first), most)


def shaped_beams(
    batch: Batch, form: BeamForm, beams: ClosedBeams, vocabulary: int, compiled: Iterable[tuple[int, int]] = ()
) -> Shaped[ClosedBeams]:
    """The same for groups of beams, whose number is a power of two; each row writes the blocks of its new positions.

    It writes them from their start on, as what lies there before is that of the beam it descends from.
    """
    height, width = _size(batch, beams.rows, compiled, form.each)
    tables, first = _tables(batch, height, width)
    most = turns_within(form.chain, height // form.chain.each, vocabulary, beams.divisors.shape[1])
    groups = padded_beams(shortened(beams, most), height // form.each, width * BLOCK)
    return Shaped(groups, tables, first // BLOCK * BLOCK, first % BLOCK, LONGEST + BLOCK)


def shaped_texts(
    batch: Batch, form: ContrastiveForm, texts: ClosedTexts, vocabulary: int, compiled: Iterable[tuple[int, int]] = ()
) -> Shaped[ClosedTexts]:
    """The same for texts and their candidates, whose number is a power of two; a text writes as its first row does."""
    features = texts.read.shape[2]
    serving = [pair for pair in compiled if fits(pair[0] // form.each, pair[1] * BLOCK, features)]
    height, width = _size(batch, texts.rows, serving, form.each)
    tables, first = _tables(batch, height, width)
    most = turns_within(form.chain, height // form.each, vocabulary, LONGEST)
    shorter = replace(texts, rows=replace(texts.rows, room=np.minimum(texts.rows.room, most)))
    closed = padded_texts(shorter, height // form.each, width * BLOCK)
    return Shaped(closed, tables, first, np.zeros_like(first), most)


def _size(batch: Batch, rows: ClosedRows, compiled: Iterable[tuple[int, int]], each: int) -> tuple[int, int]:
    """R and B of groups of `each` rows."""
    count = len(batch.first)
    ends = batch.first + rows.room.repeat(count // len(rows.room))
    needed, most = blocks_for(int(max(ends.max(), rows.tokens.shape[1]))), blocks_for(int(rows.longest.max()))
    height, width = each * bucket(count // each), bucket(max(needed, min(most, FEW)), LEAST_BLOCKS)
    serving = [pair for pair in compiled if count <= pair[0] <= SPARE * height and needed <= pair[1] <= SPARE * width]
    if (height, width) not in serving and serving:
        return min(serving, key=lambda pair: pair[0] * pair[1])
    return height, width


def _tables(batch: Batch, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch's tables Int["R B"] and first positions Int["R"]."""
    tables, first = np.zeros((height, width), np.int32), np.zeros(height, np.int32)
    count, taken = len(batch.first), min(width, batch.tables.shape[1])
    tables[:count, :taken], first[:count] = batch.tables[:, :taken], batch.first
    return tables, first
