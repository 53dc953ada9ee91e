"""A program in the library's own form, and the call that runs a step of it."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np

from fabula.errors import OutOfMemoryError
from fabula.kernels.library import Library
from fabula.kernels.memory import place_buffers
from fabula.kernels.program import ACTIVATIONS, FORMAT_NUMBERS, Instruction, Operation, Program, Rope, Value
from fabula.kernels.stored import LANES
from fabula.kernels.structures import CBurst, CInstruction, CMatrix, CPositionBias, CRope, CStep, CValue


class ThreadPool:
    """Threads of the library; they sleep while nothing runs."""

    def __init__(self, library: Library, threads: int) -> None:
        self.library = library
        self.threads = threads
        self.address = library.calls.fabula_pool_new(threads)
        weakref.finalize(self, library.calls.fabula_pool_free, self.address)


class CompiledProgram:
    """A program that the library holds. What it points to stays alive as long as it does."""

    def __init__(self, library: Library, program: Program) -> None:
        self.library = library
        self.program = program
        self._kept: list[Any] = []
        self._ropes: dict[Rope, int] = {}
        self._biases: dict[int, int] = {}  # id of an array -> its CPositionBias
        self._offsets, row_bytes = place_buffers(program)
        self._values: dict[int, int] = {}
        self._table: list[CValue] = []
        instructions = (CInstruction * len(program.instructions))(*map(self._lower, program.instructions))
        values = (CValue * len(self._table))(*self._table)
        ropes = (CRope * len(self._ropes))(*map(self._lower_rope, self._ropes))
        self.address = library.calls.fabula_program_new(
            instructions, len(instructions), values, len(values), ropes, len(ropes), row_bytes
        )
        if not self.address:
            raise OutOfMemoryError("the model's program does not fit in memory.")
        weakref.finalize(self, library.calls.fabula_program_free, self.address)

    def run(self, pool: ThreadPool, step: CStep) -> None:
        """Executes one step."""
        self.library.run(self.address, pool.address, step)

    def run_burst(self, pool: ThreadPool, step: CStep, rows: Any, burst: CBurst) -> None:
        """Executes steps one after the other; the first output are the logits."""
        self.library.run_burst(self.address, pool.address, step, rows, self.program.outputs[0].width, burst)

    def _value(self, value: Value | None) -> int:
        """A value's number."""
        if value is None:
            return -1
        if id(value) not in self._values:
            buffer = value.buffer
            self._values[id(value)] = len(self._table)
            self._kept.append(value)
            small = buffer.output is None and buffer.by_rows
            output = -1 if buffer.output is None else buffer.output
            self._table.append(
                CValue(
                    self._offsets.get(buffer, 0),
                    buffer.stride,
                    4 * value.start,
                    value.width,
                    buffer.scored,
                    small,
                    output,
                )
            )
        return self._values[id(value)]

    def _pointer(self, array: np.ndarray | None) -> int | None:
        if array is None:
            return None
        self._kept.append(array)
        return array.ctypes.data

    def _lower(self, instruction: Instruction) -> CInstruction:
        inputs = [self._value(value) for value in instruction.inputs] + [-1] * (3 - len(instruction.inputs))
        lowered = CInstruction(instruction.operation, instruction.scored, *inputs, self._value(instruction.out))
        lowered.gathered = sum(value.gathered << i for i, value in enumerate(instruction.inputs))
        lowered.segments = len(instruction.segments)
        lowered.numbers[0] = instruction.number
        for i, array in enumerate(instruction.weights):
            lowered.pointers[i] = self._pointer(array)
        self._lower_details(instruction, lowered)
        for i, segment in enumerate(instruction.segments):
            target = lowered.segment[i]
            target.matrix = ctypes.cast(segment.matrix.address, ctypes.POINTER(CMatrix))
            target.bias = self._pointer(segment.bias)
            target.out, target.residual = self._value(segment.out), self._value(segment.residual)
            target.residual_gathered = segment.residual is not None and segment.residual.gathered
            self._kept.append(segment.matrix)
        return lowered

    def _lower_details(self, instruction: Instruction, lowered: CInstruction) -> None:
        integers: tuple[int, ...] = ()
        if instruction.table is not None:
            table = instruction.table
            lowered.pointers[0] = self._pointer(table.data)
            low = table.row_bytes & 0xFFFFFFFF
            integers = (FORMAT_NUMBERS[table.format], table.row_bytes >> 32, low - (low >> 31 << 32), table.rows)
        elif instruction.rope is not None:
            integers = (self._ropes.setdefault(instruction.rope, len(self._ropes)), instruction.rope.head_dim)
        elif instruction.attention is not None:
            a, s = instruction.attention, instruction.attention.stored
            offsets = s.key_offset, s.value_offset
            integers = (a.heads, s.kv_heads, s.head_dim, a.window or 0, s.bits, s.group, *offsets)
            lowered.numbers[0], lowered.numbers[1] = a.scale, a.softcap or 0.0
            lowered.pointers[0] = None if a.bias is None else self._position_bias(a.bias)
        elif instruction.operation == Operation.RMS_NORM:
            integers = (instruction.group,)
        elif instruction.operation in (Operation.ACTIVATE, Operation.GATE, Operation.GATED_MATMUL):
            integers = (ACTIVATIONS[instruction.activation],)
        for i, number in enumerate(integers):
            lowered.integers[i] = number

    def _position_bias(self, bias: np.ndarray) -> int:
        """Where the numbers of distances lie; layers that share them share their copy."""
        if id(bias) not in self._biases:
            wide = np.ascontiguousarray(np.pad(bias, ((0, 0), (LANES, LANES)), mode="edge"), np.float32)
            lowered = CPositionBias(self._pointer(wide), bias.shape[1] // 2)
            self._kept += [bias, lowered]
            self._biases[id(bias)] = ctypes.addressof(lowered)
        return self._biases[id(bias)]

    def _lower_rope(self, rope: Rope) -> CRope:
        frequencies = np.array(rope.inverse_frequencies, np.float64)
        self._kept.append(frequencies)
        pointer = frequencies.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        return CRope(pointer, len(frequencies), rope.factor)
