"""A model's weights, prepared for what the program does with them: packed, as vectors, or as they are."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from fabula.errors import ArgumentError
from fabula.kernels.library import Library
from fabula.kernels.packing import LAYOUTS, Source, WeightArena, packed_bytes, unpacked
from fabula.kernels.plain import rounded_to
from fabula.kernels.program import Layout, Matrix, RowTable
from fabula.ops.native_graph import StoredWeight
from fabula.ops.position_buckets import bucket_table
from fabula.ops.specs import AttentionSpec
from fabula.quant.convert import FLOATS, check_packable
from fabula.quant.formats import StoredTensor, stored

Precision = Literal["packed", "float32", "bfloat16", "float16", "8bit", "4bit"]
PRECISIONS: tuple[Precision, ...] = ("packed", "float32", "bfloat16", "float16", "8bit", "4bit")


def layout_for(weight: StoredWeight, precision: Precision) -> Layout:
    """How a matrix is stored at this precision. What is packed already stays so, but where floats are asked for."""
    kept = LAYOUTS[weight.tensor.format]
    chosen = {
        "packed": kept,
        "float32": Layout.FLOAT32,
        "bfloat16": Layout.BRAIN16,
        "float16": Layout.FLOAT16,
        "8bit": Layout.CODE8,
        "4bit": Layout.CODE8 if weight.head else Layout.CODE4_MIN,
    }[precision]
    return kept if precision in ("8bit", "4bit") and kept.packed else chosen


class NativeWeights:
    """Prepares each weight once. `matrices`: those that linears use, in the order of use."""

    def __init__(
        self,
        library: Library | None,
        matrices: Sequence[StoredWeight],
        precision: Precision,
        threads: int,
        loaded: Callable[[int, int], None] | None = None,
    ) -> None:
        """`loaded` is told of the bytes read and of all bytes, as the matrices are packed."""
        if precision not in PRECISIONS:
            raise ArgumentError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
        self.precision = precision
        self._vectors: dict[tuple[int, float], np.ndarray] = {}
        self._tables: dict[int, RowTable] = {}
        self._distances: dict[tuple[int, AttentionSpec], np.ndarray] = {}
        self._kept: list[StoredWeight] = []
        unique = {_key(weight): weight for weight in matrices}
        sizes = _sizes(library, list(unique.values()), precision)
        self.arena = None if library is None else WeightArena(library, sum(sizes))
        self._matrices: dict[tuple[int, bool], Matrix] = {}
        done, total = 0, sum(weight.tensor.data.nbytes for weight in unique.values())
        for key, weight in unique.items():
            source = _source(weight, layout_for(weight, precision))
            self._matrices[key] = unpacked(source) if self.arena is None else self.arena.pack(source, threads, _release)
            self._kept.append(weight)
            done += weight.tensor.data.nbytes
            if loaded is not None:
                loaded(done, total)

    def matrix(self, weight: StoredWeight) -> Matrix:
        """The packed weight of a linear."""
        return self._matrices[_key(weight)]

    def vector(self, weight: StoredWeight, offset: float = 0.0) -> np.ndarray:
        """A norm's weight or a bias as float32, plus `offset`."""
        key = (id(weight.tensor), offset)
        if key not in self._vectors:
            self._kept.append(weight)
            values = weight.tensor.dequantize().reshape(-1)
            self._vectors[key] = np.ascontiguousarray(values + np.float32(offset), np.float32)
        return self._vectors[key]

    def distances(self, weight: StoredWeight, spec: AttentionSpec) -> np.ndarray:
        """Float32["heads 2 * far + 1"]: what each distance from -far on adds, of a weight [buckets, heads]."""
        key = (id(weight.tensor), spec)
        if key not in self._distances:
            assert spec.bias is not None
            self._kept.append(weight)
            table = bucket_table(spec.bias, spec.causal)
            self._distances[key] = np.ascontiguousarray(weight.tensor.dequantize()[table].T, np.float32)
        return self._distances[key]

    def table(self, weight: StoredWeight) -> RowTable:
        """A weight whose rows are looked up."""
        tensor = weight.tensor
        if id(tensor) not in self._tables:
            self._kept.append(weight)
            rows, width = tensor.shape
            _advise(tensor.data, "MADV_RANDOM")  # or each row would bring its neighbours into memory
            self._tables[id(tensor)] = RowTable(
                tensor.format, rows, width, tensor.row_bytes, tensor.data, lambda ids: tensor.rows(ids).dequantize()
            )
        return self._tables[id(tensor)]


def _key(weight: StoredWeight) -> tuple[int, bool]:
    return id(weight.tensor), weight.transposed


def _upright(weight: StoredWeight) -> StoredTensor:
    """The tensor with its outputs as rows."""
    if not weight.transposed:
        return weight.tensor
    return stored(weight.tensor.name, np.ascontiguousarray(weight.tensor.dequantize().T))


def _source(weight: StoredWeight, layout: Layout) -> Source:
    tensor = _upright(weight)
    rows, columns = tensor.shape
    width = tensor.row_bytes
    assert width * rows == tensor.data.nbytes
    if layout.packed and tensor.format in FLOATS:
        check_packable(tensor)
    return Source(
        tensor.name, tensor.format, rows, columns, width, tensor.data, layout, partial(_floats, weight, layout)
    )


def _floats(weight: StoredWeight, layout: Layout) -> np.ndarray:
    """What the packed weight stands for. Holds no copy of it: only the NumPy twin asks."""
    tensor = _upright(weight)
    stays = LAYOUTS[tensor.format] == layout and tensor.format != "Q2_K"
    return tensor.dequantize() if stays else rounded_to(layout, tensor.dequantize())


def _sizes(library: Library | None, weights: Sequence[StoredWeight], precision: Precision) -> list[int]:
    """Bytes of each packed weight."""
    if library is None:
        return []
    return [packed_bytes(library, layout_for(weight, precision), *weight.shape) for weight in weights]


def _release(data: np.ndarray) -> None:
    """Lets the system drop a mapped file's pages, which come back when they are read; other memory is left alone."""
    _advise(data, "MADV_DONTNEED")


def _advise(data: np.ndarray, advice: str) -> None:
    """Tells the system, where it listens, how the whole pages of what a file maps will be read."""
    owner: Any = data
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.obj if isinstance(owner, memoryview) else owner.base
    if not isinstance(owner, mmap.mmap) or data.flags.writeable or not hasattr(mmap, advice):
        return
    start = data.ctypes.data - np.frombuffer(owner, np.uint8).ctypes.data
    begin, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, (start + data.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > begin:
        owner.madvise(getattr(mmap, advice), begin, end - begin)
