"""What stored weights are: the formats, what their bits mean, and a weight as a file holds it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from fabula.errors import ArgumentError, NotSupportedError
from fabula.quant import float_formats, k_formats, plain_formats

Decode = Callable[[np.ndarray], np.ndarray]  # blocks [N] of the layout -> Float32["N weights"]
Encode = Callable[[np.ndarray], np.ndarray]  # Float32["N weights"] -> blocks [N] of the layout

CHUNK_WEIGHTS = 1 << 19  # decoded or encoded at a time, so that what is needed in between stays small


@dataclass(frozen=True, slots=True)
class Format:
    """One format. A row of a weight is a whole number of blocks."""

    name: str
    block_size: int  # weights a block
    block_bytes: int  # bytes a block
    layout: np.dtype  # one block's fields, little-endian, without padding
    decode: Decode
    encode: Encode | None = None  # None: read only

    @property
    def bits(self) -> float:
        """Bits a weight, scales included."""
        return 8 * self.block_bytes / self.block_size

    def row_bytes(self, row: int) -> int:
        """Bytes of a row of `row` weights."""
        if row % self.block_size:
            raise ArgumentError(
                f"a row of a {self.name} weight must be a multiple of {self.block_size} weights, got {row}. "
                "Use a format with smaller blocks, such as F16."
            )
        return row // self.block_size * self.block_bytes

    def nbytes(self, shape: Sequence[int]) -> int:
        """Bytes of a weight of this shape."""
        return math.prod(shape[:-1]) * self.row_bytes(shape[-1] if len(shape) else 1)


def _format(name: str, block_size: int, layout: np.dtype, decode: Decode, encode: Encode | None = None) -> Format:
    return Format(name, block_size, layout.itemsize, layout, decode, encode)


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            _format("F32", 1, float_formats.F32, float_formats.decode_f32, float_formats.encode_f32),
            _format("F16", 1, float_formats.F16, float_formats.decode_f16, float_formats.encode_f16),
            _format("BF16", 1, float_formats.BF16, float_formats.decode_bf16, float_formats.encode_bf16),
            _format("Q4_0", 32, plain_formats.Q4_0, plain_formats.decode_q4_0, plain_formats.encode_q4_0),
            _format("Q4_1", 32, plain_formats.Q4_1, plain_formats.decode_q4_1, plain_formats.encode_q4_1),
            _format("Q5_0", 32, plain_formats.Q5_0, plain_formats.decode_q5_0),
            _format("Q5_1", 32, plain_formats.Q5_1, plain_formats.decode_q5_1),
            _format("Q8_0", 32, plain_formats.Q8_0, plain_formats.decode_q8_0, plain_formats.encode_q8_0),
            _format("Q2_K", 256, k_formats.Q2_K, k_formats.decode_q2_k),
            _format("Q3_K", 256, k_formats.Q3_K, k_formats.decode_q3_k),
            _format("Q4_K", 256, k_formats.Q4_K, k_formats.decode_q4_k),
            _format("Q5_K", 256, k_formats.Q5_K, k_formats.decode_q5_k),
            _format("Q6_K", 256, k_formats.Q6_K, k_formats.decode_q6_k),
        )
    }
)


def known_format(name: str) -> Format:
    """The format of this name; raises ArgumentError."""
    if name not in FORMATS:
        raise ArgumentError(f"format must be one of {', '.join(FORMATS)}, got {name!r}. Convert it to one of these.")
    return FORMATS[name]


def dequantize(format: str, data: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The float32 weights of this shape that `data` (uint8, flat) holds; F32 data are viewed where they can be."""
    known = known_format(format)
    if data.nbytes != known.nbytes(shape):
        raise ArgumentError(
            f"data must have {known.nbytes(shape)} bytes for {format} weights of shape {tuple(shape)}, "
            f"got {data.nbytes}. Pass the bytes of the whole weight."
        )
    blocks = np.ascontiguousarray(data).reshape(-1).view(known.layout)
    if format == "F32":
        return np.require(known.decode(blocks), np.float32, "A").reshape(shape)
    weights = np.empty((len(blocks), known.block_size), np.float32)
    step = max(1, CHUNK_WEIGHTS // known.block_size)
    with np.errstate(all="ignore"):  # a scale may be infinite or NaN, and then so are its weights
        for start in range(0, len(blocks), step):
            weights[start : start + step] = known.decode(blocks[start : start + step])
    return weights.reshape(shape)


def quantize(format: str, weights: np.ndarray) -> np.ndarray:
    """The bytes (uint8, flat) of `weights` (float32) in this format; raises if a scale does not fit in float16."""
    known = known_format(format)
    if known.encode is None:
        written = ", ".join(name for name, entry in FORMATS.items() if entry.encode)
        raise NotSupportedError(
            f"format must be one of {written} to quantize to, got {format!r}. "
            "Use one of them, or a file that was quantized elsewhere."
        )
    known.row_bytes(weights.shape[-1] if weights.ndim else 1)
    values = np.ascontiguousarray(weights, np.float32).reshape(-1, known.block_size)
    blocks = np.empty(len(values), known.layout)
    step = max(1, CHUNK_WEIGHTS // known.block_size)
    for start in range(0, len(values), step):
        blocks[start : start + step] = known.encode(values[start : start + step])
    return blocks.view(np.uint8)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A weight whose rows lie one after the other: row r is data[r * row_bytes : (r + 1) * row_bytes]."""

    name: str  # as a Hugging Face checkpoint names it
    format: str  # a key of FORMATS
    shape: tuple[int, ...]  # of the data, row-major, in PyTorch's order: (out, in) for a matrix
    data: np.ndarray  # UInt8["bytes"]: flat, read-only; a view of the file where nothing had to be changed
    transposed: bool = False  # `name`'s layer keeps the transpose, (in, out); these data do not

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; of the whole, where there is one dimension."""
        return FORMATS[self.format].row_bytes(self.shape[-1] if self.shape else 1)

    def dequantize(self) -> np.ndarray:
        """The weights in float32, in `shape`; possibly a read-only view of the file."""
        return dequantize(self.format, self.data, self.shape)

    def rows(self, index: np.ndarray) -> StoredTensor:
        """This weight with row index[i] as its row i; a vector's rows are its numbers (formats of single weights)."""
        width = self.row_bytes if len(self.shape) > 1 else known_format(self.format).block_bytes
        taken = np.ascontiguousarray(self.data.reshape(-1, width)[index]).reshape(-1)
        taken.flags.writeable = False
        shape = (len(index), *self.shape[1:])
        return replace(self, shape=shape, data=taken)


def stored(name: str, weights: np.ndarray) -> StoredTensor:
    """These float32 weights, stored as F32."""
    data = np.ascontiguousarray(weights, "<f4").reshape(-1).view(np.uint8)
    data.flags.writeable = False
    return StoredTensor(name, "F32", tuple(weights.shape), data)
