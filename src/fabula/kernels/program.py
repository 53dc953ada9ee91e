"""A forward pass as data: instructions over named buffers, which cpp/ and plain.py execute alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from fabula.kernels.stored import Stored

GROUP = 32  # features that share a scale, in a quantized row
CHUNK = 64  # features that a quantized row is padded to a multiple of
SCALE_BYTES, OUTLIER_BYTES = 20, 64  # of a group: GroupScale and Outlier in cpp/kernels.h
COUNT_BYTES = 64  # what a row keeps of how many outliers it has
FORMAT_NUMBERS = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8,
    "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "BF16": 30,
}  # fmt: skip
ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "relu": 3}


class Layout(IntEnum):
    """How a weight lies in memory; see cpp/abi.h."""

    CODE4 = 0
    CODE4_MIN = 1
    CODE5 = 2
    CODE5_MIN = 3
    CODE6 = 4
    CODE8 = 5
    FLOAT16 = 6
    BRAIN16 = 7
    FLOAT32 = 8

    @property
    def packed(self) -> bool:
        """Whether activations are quantized for it."""
        return self < Layout.FLOAT16


class Operation(IntEnum):
    """What an instruction does; those before MATMUL work on each row by itself."""

    EMBED = 0
    EMBED_POSITIONS = 1
    RMS_NORM = 2
    LAYER_NORM = 3
    QUANTIZE = 4
    ADD = 5
    ROPE = 6
    ACTIVATE = 7
    GATE = 8
    SOFTCAP = 9
    COPY = 10
    SCALE = 11
    MATMUL = 12
    GATED_MATMUL = 13
    ATTEND = 14
    ATTEND_BOTH = 15
    ATTEND_MEMORY = 16
    STORE = 17


@dataclass(eq=False, slots=True)
class Buffer:
    """Rows of activations: one a position of the step, or one a scored position."""

    width: int  # features
    scored: bool
    quantized: bool = False  # codes and scales instead of floats
    output: int | None = None  # handed to the caller as this output
    by_rows: bool = True  # computed row by row, so that every thread may keep its own copy

    @property
    def stride(self) -> int:
        """Bytes a row."""
        if self.output is not None:
            return 4 * self.width
        if not self.quantized:
            return -(-4 * self.width // 64) * 64
        padded = -(-self.width // CHUNK) * CHUNK
        return padded + (SCALE_BYTES + OUTLIER_BYTES) * (padded // GROUP) + COUNT_BYTES


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    """A buffer's features [start, start + width); `gathered`: those of the scored rows of a buffer that has all."""

    buffer: Buffer
    start: int
    width: int
    gathered: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Matrix:
    """A weight [rows, columns], ready for the kernels or, as floats, for their twin."""

    name: str
    rows: int
    columns: int
    layout: Layout
    floats: Callable[[], np.ndarray]  # Float32["rows columns"]
    address: int = 0  # of its CMatrix; 0 without the library


@dataclass(frozen=True, eq=False, slots=True)
class RowTable:
    """A weight whose rows are looked up: a file's bytes as they are."""

    format: str
    rows: int
    width: int
    row_bytes: int
    data: np.ndarray  # UInt8["bytes"]
    dequantize: Callable[[np.ndarray], np.ndarray]  # ids -> Float32["ids width"]


@dataclass(frozen=True, eq=False, slots=True)
class Rope:
    """Angles: frequencies in radians a position."""

    head_dim: int
    inverse_frequencies: tuple[float, ...]
    factor: float


@dataclass(frozen=True, eq=False, slots=True)
class Attention:
    """One layer's attention, and how its keys and values lie in a cache block."""

    heads: int
    scale: float
    window: int | None
    softcap: float | None
    stored: Stored
    bias: np.ndarray | None = None  # Float32["heads 2 * far + 1"]: what distances, key less query, from -far on add


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """One product of a matmul: out = input @ matrix.T + bias + residual."""

    matrix: Matrix
    out: Value | None = None  # None: the instruction has one result for all segments
    bias: np.ndarray | None = None
    residual: Value | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Instruction:
    """One operation. Which of the optional fields count follows from `operation`."""

    operation: Operation
    scored: bool
    inputs: tuple[Value, ...] = ()
    out: Value | None = None
    segments: tuple[Segment, ...] = ()
    weights: tuple[np.ndarray, ...] = ()  # norms: weight, bias
    group: int = 0  # RMS_NORM: features a root mean square
    number: float = 0.0  # epsilon, cap or scale; how far above its row a group of a quantized one has second codes
    activation: str = "silu"
    table: RowTable | None = None
    rope: Rope | None = None
    attention: Attention | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Program:
    """Instructions in order; `outputs` are the buffers that the caller gets, by number."""

    instructions: Sequence[Instruction]
    outputs: Sequence[Buffer]
    buffers: Sequence[Buffer] = field(default=())  # all others
