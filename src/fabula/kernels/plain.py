"""The kernels' plain twin: executes a program in NumPy, instruction by instruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from fabula.kernels.plain_attention import Places, attend, attend_memory, store
from fabula.kernels.program import GROUP, Buffer, Instruction, Layout, Matrix, Operation, Program, Value


class Inputs(Protocol):
    """What a step is given: ops/protocol.py's Batch."""

    @property
    def tokens(self) -> np.ndarray: ...
    @property
    def starts(self) -> np.ndarray: ...
    @property
    def first(self) -> np.ndarray: ...
    @property
    def tables(self) -> np.ndarray: ...
    @property
    def scored(self) -> np.ndarray: ...
    @property
    def vectors(self) -> Any: ...
    @property
    def memories(self) -> Sequence[Any]: ...
    @property
    def columns(self) -> np.ndarray | None: ...


def positions_of(batch: Inputs) -> np.ndarray:
    """Int["T"]: the position of each token in its row."""
    counts = np.diff(batch.starts)
    return np.repeat(batch.first - batch.starts[:-1], counts) + np.arange(batch.starts[-1])


class PlainProgram:
    """Runs a program in float32; rows that the kernels quantize are rounded in the same way."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._floats = lru_cache(maxsize=None)(_dense)

    def run(self, batch: Inputs, cache: np.ndarray) -> list[np.ndarray]:
        """The outputs of one step. `cache` is UInt8["blocks bytes"], written in place."""
        memory: dict[Buffer, np.ndarray] = {}
        for instruction in self.program.instructions:
            step = _Step(batch, cache, memory, instruction, self._floats)
            OPERATIONS.get(instruction.operation, _by_rows)(step)
        return [memory[buffer] for buffer in self.program.outputs]


class _Step:
    """One instruction in one step."""

    def __init__(
        self, batch: Inputs, cache: np.ndarray, memory: dict[Buffer, np.ndarray], instruction: Instruction,
        floats: Callable[[Matrix], np.ndarray],
    ) -> None:  # fmt: skip
        self.batch, self.cache, self.memory, self.instruction, self.floats = batch, cache, memory, instruction, floats
        self.inputs = [self.read(value) for value in instruction.inputs]

    def read(self, value: Value) -> np.ndarray:
        whole = self.memory[value.buffer][:, value.start : value.start + value.width]
        return whole[self.batch.scored] if value.gathered else whole

    def write(self, value: Value | None, rows: np.ndarray) -> None:
        assert value is not None
        self.memory[value.buffer] = np.ascontiguousarray(rows, np.float32)

    def of_tokens(self, array: np.ndarray) -> np.ndarray:
        """An array over all positions, at those that the instruction runs on."""
        return array[self.batch.scored] if self.instruction.scored else array


def _dense(matrix: Matrix) -> np.ndarray:
    return matrix.floats()


def _by_rows(step: _Step) -> None:
    step.write(step.instruction.out, ROWS[step.instruction.operation](step, *step.inputs))


def _matmul(step: _Step) -> None:
    (x,) = step.inputs
    for segment in step.instruction.segments:
        result = x @ step.floats(segment.matrix).T
        if segment.bias is not None:
            result = result + segment.bias
        if segment.residual is not None:
            result = result + step.read(segment.residual)
        step.write(segment.out, result)


def _gated_matmul(step: _Step) -> None:
    (x,) = step.inputs
    gate, up = (x @ step.floats(segment.matrix).T for segment in step.instruction.segments)
    gated = activated(gate, step.instruction.activation) * up
    step.write(step.instruction.out, quantized(gated, step.instruction.number))


def _attend(step: _Step) -> None:
    attention, places = step.instruction.attention, _places(step)
    assert attention is not None
    q, k, v = step.inputs
    store(attention.stored, k, v, places, step.cache)
    both = step.instruction.operation == Operation.ATTEND_BOTH
    step.write(step.instruction.out, attend(attention, q, places, step.cache, both))


def _attend_memory(step: _Step) -> None:
    attention = step.instruction.attention
    assert attention is not None
    memories = [(memory.data, memory.length) for memory in step.batch.memories]
    (q,) = step.inputs
    step.write(step.instruction.out, attend_memory(attention, q, _places(step), memories))


def _store(step: _Step) -> None:
    assert step.instruction.attention is not None
    k, v = step.inputs
    store(step.instruction.attention.stored, k, v, _places(step), step.cache)


def _places(step: _Step) -> Places:
    batch, positions = step.batch, positions_of(step.batch)
    rows = np.repeat(np.arange(len(batch.first)), np.diff(batch.starts))
    return Places(rows, positions, step.of_tokens(np.arange(len(positions))), batch.tables, batch.columns)


def _embed(step: _Step) -> np.ndarray:
    table, vectors = step.instruction.table, step.batch.vectors
    assert table is not None
    if vectors is not None:
        return step.of_tokens(np.asarray(vectors, np.float32))
    return table.dequantize(step.of_tokens(step.batch.tokens)) * np.float32(step.instruction.number)


def _embed_positions(step: _Step) -> np.ndarray:
    assert step.instruction.table is not None
    return step.instruction.table.dequantize(step.of_tokens(positions_of(step.batch)))


def _rms_norm(step: _Step, x: np.ndarray) -> np.ndarray:
    runs = x.reshape(len(x), -1, step.instruction.group)
    mean = np.mean(runs * runs, axis=-1, keepdims=True) + np.float32(step.instruction.number)
    return (runs / np.sqrt(mean) * step.instruction.weights[0]).reshape(x.shape)


def _layer_norm(step: _Step, x: np.ndarray) -> np.ndarray:
    weight, bias = step.instruction.weights
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    return centred / np.sqrt(variance + np.float32(step.instruction.number)) * weight + bias


def _rope(step: _Step, x: np.ndarray) -> np.ndarray:
    rope = step.instruction.rope
    assert rope is not None
    positions = step.of_tokens(positions_of(step.batch))
    angles = positions[:, None].astype(np.float64) * np.array(rope.inverse_frequencies)
    cosines, sines = ((f(angles) * rope.factor).astype(np.float32)[:, None] for f in (np.cos, np.sin))
    heads = x.reshape(len(x), -1, rope.head_dim).copy()
    half = len(rope.inverse_frequencies)
    first, second = heads[..., :half].copy(), heads[..., half : 2 * half].copy()
    heads[..., :half] = first * cosines - second * sines
    heads[..., half : 2 * half] = second * cosines + first * sines
    return heads.reshape(x.shape)


def _activate(step: _Step, x: np.ndarray) -> np.ndarray:
    return activated(x, step.instruction.activation)


def _gate(step: _Step, gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    return activated(gate, step.instruction.activation) * up


def _softcap(step: _Step, x: np.ndarray) -> np.ndarray:
    cap = np.float32(step.instruction.number)
    return cap * np.tanh(x / cap)


def activated(x: np.ndarray, kind: str) -> np.ndarray:
    """The activation function, element by element."""
    if kind == "relu":
        return np.maximum(x, 0)
    if kind == "gelu_tanh":
        return 0.5 * x * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x)))
    if kind == "gelu":
        return x * 0.5 * (1 + error_function(x / np.sqrt(2.0)))
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))


def error_function(x: np.ndarray) -> np.ndarray:
    """Abramowitz and Stegun 7.1.26, as the kernels have it."""
    a = np.abs(x)
    t = 1 / (1 + 0.3275911 * a)
    p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    return np.sign(x) * (1 - p * np.exp(-a * a))


def quantized(x: np.ndarray, far: float) -> np.ndarray:
    """Rows as they are after rounding to 8 bits: in groups of 32, the largest of each being 127.

    A group whose largest is above `far` times its row's root mean square is rounded again: 15 bits.
    """
    groups, scale = _rounded_groups(x)
    rounded = _coded(groups, scale)
    mean = np.asarray(np.mean(x * x, axis=-1, dtype=np.float32))
    limit = mean[:, None, None] * np.float32(far**2 / 127**2)
    second = rounded + _coded(groups - rounded, scale / np.float32(254))
    return np.where(scale * scale > limit, second, rounded).reshape(len(x), -1)[:, : x.shape[1]]


def _rounded_groups(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float32["T groups 32"], padded with zeros, and the groups' scales."""
    groups = np.pad(x, ((0, 0), (0, -x.shape[1] % GROUP))).reshape(len(x), -1, GROUP).astype(np.float32)
    return groups, np.abs(groups).max(axis=-1, keepdims=True) / np.float32(127)


def _coded(groups: np.ndarray, scale: np.ndarray) -> np.ndarray:
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    return np.clip(np.rint(groups * inverse), -127, 127) * scale


def rounded_to(layout: Layout, weights: np.ndarray) -> np.ndarray:
    """Float weights as they are after packing to a layout."""
    if layout == Layout.FLOAT32:
        return weights
    if layout == Layout.FLOAT16:
        return weights.astype(np.float16).astype(np.float32)
    if layout == Layout.BRAIN16:
        bits = np.ascontiguousarray(weights, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    padded = np.pad(weights, ((0, 0), (0, -weights.shape[1] % GROUP))).reshape(len(weights), -1, GROUP)
    coded = _eight_bits(padded) if layout == Layout.CODE8 else _four_bits(padded)
    return coded.reshape(len(weights), -1)[:, : weights.shape[1]]


def _half(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).astype(np.float32)


def _eight_bits(groups: np.ndarray) -> np.ndarray:
    scale = _half(np.abs(groups).max(axis=-1, keepdims=True) / np.float32(127))
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    return np.clip(np.rint(groups * inverse), -127, 127) * scale


def _four_bits(groups: np.ndarray) -> np.ndarray:
    low = _half(groups.min(axis=-1, keepdims=True))
    scale = _half((groups.max(axis=-1, keepdims=True) - low) / np.float32(15))
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    return np.clip(np.rint((groups - low) * inverse), 0, 15) * scale + low


ROWS: Mapping[Operation, Callable[..., np.ndarray]] = MappingProxyType(
    {
        Operation.EMBED: _embed,
        Operation.EMBED_POSITIONS: _embed_positions,
        Operation.RMS_NORM: _rms_norm,
        Operation.LAYER_NORM: _layer_norm,
        Operation.QUANTIZE: lambda step, x: quantized(x, step.instruction.number),
        Operation.ADD: lambda _, x, y: x + y,
        Operation.ROPE: _rope,
        Operation.ACTIVATE: _activate,
        Operation.GATE: _gate,
        Operation.SOFTCAP: _softcap,
        Operation.COPY: lambda _, x: x,
        Operation.SCALE: lambda step, x: x * np.float32(step.instruction.number),
    }
)
OPERATIONS: Mapping[Operation, Callable[[_Step], None]] = MappingProxyType(
    {
        Operation.MATMUL: _matmul,
        Operation.GATED_MATMUL: _gated_matmul,
        Operation.ATTEND: _attend,
        Operation.ATTEND_BOTH: _attend,
        Operation.ATTEND_MEMORY: _attend_memory,
        Operation.STORE: _store,
    }
)
