"""Weights from a file's bytes to the kernels' panels, in one arena that huge pages may back."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fabula.errors import OutOfMemoryError
from fabula.kernels.library import Library
from fabula.kernels.program import FORMAT_NUMBERS, Layout, Matrix
from fabula.kernels.structures import CMatrix

PANEL = 16  # rows that are interleaved
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

    def pack(self, source: Source, threads: int) -> Matrix:
        """The weight, packed behind those before it."""
        size = packed_bytes(self.library, source.layout, source.rows, source.columns)
        panel = self.library.calls.fabula_panel_bytes(source.layout, source.columns)
        target = self.data + self.used
        multiplier = self.library.calls.fabula_pack(
            FORMAT_NUMBERS[source.format], source.layout, source.data.ctypes.data,
            source.rows, source.columns, source.row_bytes, target, threads,
        )  # fmt: skip
        self.used += size
        structure = CMatrix(target, panel, source.layout, source.rows, source.columns, multiplier)
        self.structures.append(structure)
        address = ctypes.addressof(structure)
        return Matrix(source.name, source.rows, source.columns, source.layout, source.floats, address)


def packed_bytes(library: Library, layout: Layout, rows: int, columns: int) -> int:
    """Bytes that a weight takes in an arena."""
    return -(-rows // PANEL) * library.calls.fabula_panel_bytes(layout, columns)


def unpacked(source: Source) -> Matrix:
    """The weight for the NumPy twin."""
    return Matrix(source.name, source.rows, source.columns, source.layout, source.floats)
