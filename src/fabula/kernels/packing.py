"""Weights from a file's bytes to the kernels' panels, in one arena that huge pages may back."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fabula.errors import OutOfMemoryError
from fabula.kernels.library import Library
from fabula.kernels.program import FORMAT_NUMBERS, Layout, Matrix
from fabula.kernels.structures import CMatrix

PANEL = 16  # rows that are interleaved
PIECE_BYTES = 16 << 20  # of a weight that are mapped at a time
PRODUCT_SCALES = ("Q3_K", "Q4_K", "Q5_K", "Q6_K")  # formats whose scales are products
LAYOUTS = {
    "Q4_0": Layout.CODE4, "Q4_1": Layout.CODE4_MIN, "Q4_K": Layout.CODE4_MIN, "Q5_0": Layout.CODE5,
    "Q5_1": Layout.CODE5_MIN, "Q5_K": Layout.CODE5_MIN, "Q6_K": Layout.CODE6, "Q3_K": Layout.CODE6,
    "Q8_0": Layout.CODE8, "Q2_K": Layout.CODE8, "F16": Layout.FLOAT16, "BF16": Layout.BRAIN16, "F32": Layout.FLOAT32,
}  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class Source:
    """A weight before it is packed."""

    name: str
    format: str
    rows: int
    columns: int
    row_bytes: int
    data: np.ndarray  # UInt8["bytes"]
    layout: Layout
    floats: Callable[[], np.ndarray]  # what the packed weight stands for


class WeightArena:
    """The memory of a model's packed weights."""

    def __init__(self, library: Library, bytes_needed: int) -> None:
        """Raises OutOfMemoryError."""
        self.library = library
        self.address = library.calls.fabula_arena_new(max(64, bytes_needed))
        if not self.address:
            raise OutOfMemoryError(f"the weights need {bytes_needed:,} bytes of memory. Use a smaller or packed model.")
        weakref.finalize(self, library.calls.fabula_arena_free, self.address)
        self.data = library.calls.fabula_arena_data(self.address)
        self.used = 0
        self.structures: list[CMatrix] = []

    def pack(self, source: Source, threads: int, release: Callable[[np.ndarray], None]) -> Matrix:
        """The weight, packed behind those before it; `release` is shown each piece of the data that was read."""
        calls, panel = self.library.calls, self.library.calls.fabula_panel_bytes(source.layout, source.columns)
        target, multiplier = self.data + self.used, 1.0
        kind = FORMAT_NUMBERS[source.format], source.layout
        if source.format in PRODUCT_SCALES:
            multiplier = 0.0
            for _, rows, data in _pieces(source):
                scale = calls.fabula_scale_multiplier(*kind, data.ctypes.data, rows, source.columns, source.row_bytes)
                multiplier = max(multiplier, scale)
                release(data)
        for first, rows, data in _pieces(source):
            place = target + first // PANEL * panel
            shape = rows, source.columns, source.row_bytes
            calls.fabula_pack(*kind, data.ctypes.data, *shape, multiplier, place, threads)
            release(data)
        self.used += packed_bytes(self.library, source.layout, source.rows, source.columns)
        structure = CMatrix(target, panel, source.layout, source.rows, source.columns, multiplier)
        self.structures.append(structure)
        address = ctypes.addressof(structure)
        return Matrix(source.name, source.rows, source.columns, source.layout, source.floats, address)


def _pieces(source: Source) -> Iterator[tuple[int, int, np.ndarray]]:
    """The rows of a weight in pieces of whole panels: first row, number of rows, their bytes."""
    step = max(1, PIECE_BYTES // (source.row_bytes * PANEL)) * PANEL
    for first in range(0, source.rows, step):
        rows = min(step, source.rows - first)
        yield first, rows, source.data[first * source.row_bytes : (first + rows) * source.row_bytes]


def packed_bytes(library: Library, layout: Layout, rows: int, columns: int) -> int:
    """Bytes that a weight takes in an arena."""
    return -(-rows // PANEL) * library.calls.fabula_panel_bytes(layout, columns)


def unpacked(source: Source) -> Matrix:
    """The weight for the NumPy twin."""
    return Matrix(source.name, source.rows, source.columns, source.layout, source.floats)
