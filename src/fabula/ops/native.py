"""A model on the CPU kernels: its forward pass is recorded once, and each step runs it in one call."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from fabula.cache.native import NativeCache, NativeLayout, native_layout
from fabula.cache.native_memory import lowered_memories
from fabula.errors import NotSupportedError
from fabula.kernels.compiled import CompiledProgram, ThreadPool
from fabula.kernels.library import Library, load_library
from fabula.kernels.plain import PlainProgram
from fabula.kernels.program import Layout
from fabula.kernels.sampling import RowChoice, lowered_rows, sample_tokens
from fabula.kernels.structures import CBurst, CStep
from fabula.ops.layers import unrolled
from fabula.ops.native_graph import Node, RecordingOps, StoredWeight
from fabula.ops.native_schedule import linear_weights, schedule
from fabula.ops.native_weights import NativeWeights, Precision
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps
from fabula.quant.formats import StoredTensor

EARLY = 20  # one layer of so many is an early one
SECONDS = 0.1  # of a burst: so long waits who wants to cancel a request, or brings another
AnyProgram = CompiledProgram | PlainProgram
Buffers = Callable[[int, int, int], np.ndarray]  # (output's number, rows, features) -> where it is written
_Use = tuple[Taps, NativeLayout]  # what a program is for
Placed = Mapping[tuple[int | None, str], StoredTensor | None]  # (layer or None, field) -> the stored weight


class NativeModel:
    """One model's programs, weights and threads. `library` None: the NumPy twin runs, slowly."""

    def __init__(
        self,
        family: Any,
        tensors: Placed,
        *,
        precision: Precision = "packed",
        threads: int | None = None,
        library: Library | None = None,
        loaded: Callable[[int, int], None] | None = None,
    ) -> None:
        """`tensors`: what serves each field of the family's weight table; a transposed one says so itself.

        Raises ArgumentError for an unknown precision, OutOfMemoryError.
        """
        self.family = family
        self.threads = threads or available_threads()
        self.library = library
        self._weights = namespaces(family, tensors)
        matrices = linear_weights(self._everything())
        self.weights = NativeWeights(library, matrices, precision, self.threads, loaded)
        single = all(self.weights.matrix(each).layout == Layout.FLOAT32 for each in matrices)
        self._float_bits = 32 if single else 16
        self._layouts: dict[tuple[int, int], NativeLayout] = {}  # of caches, by the bits of a number and its group
        self._pool = None if library is None else ThreadPool(library, self.threads)
        self._programs: dict[_Use, AnyProgram] = {}
        self._buffers: dict[tuple[_Use, int], np.ndarray] = {}
        self._program((NO_TAPS, self._layout(self._float_bits, 0)))

    @property
    def sampler(self) -> Callable[[np.ndarray, Sequence[RowChoice]], np.ndarray] | None:
        """From logits to tokens in one call; None without the kernels."""
        return None if self._pool is None else partial(sample_tokens, self._pool)

    def new_cache(self, blocks: int, bits: int = 0, group: int = 0) -> NativeCache:
        """Storage for so many blocks, of floats or of codes of 8 or 4 `bits`, of which so many features of a head
        share a scale: a multiple of 16, or all. Raises OutOfMemoryError.
        """
        return NativeCache(self._layout(bits or self._float_bits, group), blocks)

    def _layout(self, bits: int, group: int) -> NativeLayout:
        if (bits, group) not in self._layouts:
            heads = [(layer.attention.kv_heads, layer.attention.head_dim) for layer in self.family.layers]
            self._layouts[bits, group] = native_layout(heads, bits, group)
        return self._layouts[bits, group]

    def step(self, batch: Batch, cache: NativeCache, taps: Taps = NO_TAPS) -> Forward:
        """Writes the batch's keys and values; the logits of its scored positions, valid until the next step."""
        return self._step(batch, cache, taps, partial(self._kept, (taps, cache.layout)))

    def step_apart(self, batch: Batch, cache: NativeCache, taps: Taps = NO_TAPS) -> Forward:
        """The same, with outputs that are the caller's to keep."""
        return self._step(batch, cache, taps, callers_own)

    def _step(self, batch: Batch, cache: NativeCache, taps: Taps, buffer: Buffers) -> Forward:
        return _forward(taps, self._execute(self._program((taps, cache.layout)), batch, cache, buffer))

    def _everything(self) -> list[Node]:
        """What uses all weights that are to be packed."""
        return self._record(NO_TAPS)

    def _memory_layout(self) -> NativeLayout | None:
        """How what an encoder left lies in memory; None: there is no encoder."""
        return None

    def _record(self, taps: Taps) -> list[Node]:
        """The nodes of the logits and of what is tapped, in the order that `_forward` reads them."""
        if taps.attentions:
            raise NotSupportedError("attention weights are not kept by the native backend. Load with backend='torch'.")
        ops, family, (outer, layers) = RecordingOps(), self.family, self._weights
        states: dict[int, Node] = {}
        last = unrolled(family, ops, family.embed(ops, outer), layers, states.__setitem__, taps.last_layer)
        hidden = ops.scored(family.final(ops, last, outer))
        tapped = [ops.scored(states[index]) for index in taps.hidden_states]
        early = [family.logits(ops, ops.scored(states[index]), outer) for index in taps.layer_logits]
        return [family.logits(ops, hidden, outer), *([hidden] if taps.final_hidden else []), *tapped, *early]

    def _program(self, use: _Use) -> AnyProgram:
        if use not in self._programs:
            taps, layout = use
            self._programs[use] = self._scheduled(self._record(taps), layout, self._memory_layout())
        return self._programs[use]

    def _scheduled(
        self, outputs: Sequence[Node], cache: NativeLayout, memory: NativeLayout | None = None
    ) -> AnyProgram:
        program = schedule(outputs, self.weights, cache, memory)
        return PlainProgram(program) if self.library is None else CompiledProgram(self.library, program)

    def _execute(self, program: AnyProgram, batch: Batch, cache: NativeCache, buffer: Buffers) -> list[np.ndarray]:
        if isinstance(program, PlainProgram):
            return program.run(batch, cache.data)
        assert self._pool is not None
        outputs = [
            buffer(number, len(batch.scored), output.width) for number, output in enumerate(program.program.outputs)
        ]
        step, _held = _lowered(batch, cache, outputs)
        program.run(self._pool, step)
        return outputs

    def burst(
        self, batch: Batch, cache: NativeCache, rows: Sequence[RowChoice], ends: np.ndarray, steps: int
    ) -> np.ndarray:
        """Int32["K R"]: the tokens of rows of one position each in K <= steps steps, with the kernels only.

        It stops after the step in which a row chooses one of its `ends` Int32["R E"], before one in which a row's
        scores are not all finite, and after SECONDS. `rows` choose the first token; the tokens of a row that has a
        repetition penalty have room for `steps` more.
        """
        assert self._pool is not None
        use = (NO_TAPS, cache.layout)
        program = self._program(use)
        assert isinstance(program, CompiledProgram)
        own = replace(batch, tokens=batch.tokens.copy(), first=batch.first.copy())
        logits = self._kept(use, 0, len(batch.scored), program.program.outputs[0].width)
        step, _held = _lowered(own, cache, [logits])
        chosen = np.empty((steps, len(rows)), np.int32)
        burst = CBurst(steps, ends.shape[1], SECONDS, ends.ctypes.data, chosen.ctypes.data)
        program.run_burst(self._pool, step, lowered_rows(rows), burst)
        return chosen[: burst.done]

    def _kept(self, use: _Use, number: int, rows: int, width: int) -> np.ndarray:
        """The first rows of an output's buffer, which is kept for the next step."""
        key = (use, number)
        if key not in self._buffers or len(self._buffers[key]) < rows:
            self._buffers[key] = np.empty((rows, width), np.float32)
        return self._buffers[key][:rows]


def _lowered(batch: Batch, cache: NativeCache, outputs: Sequence[np.ndarray]) -> tuple[CStep, list[Any]]:
    """The batch as the library takes it, and the arrays that it points to."""
    arrays = [np.ascontiguousarray(each, np.int32) for each in (batch.tokens, batch.starts, batch.first)]
    arrays += [np.ascontiguousarray(each, np.int32) for each in (batch.tables, batch.scored)]
    vectors = None if batch.vectors is None else np.ascontiguousarray(batch.vectors, np.float32)
    step = CStep(int(batch.starts[-1]), len(batch.first), batch.tables.shape[1], len(batch.scored))
    step.tokens, step.starts, step.first, step.tables, step.scored = (each.ctypes.data for each in arrays)
    step.vectors = None if vectors is None else vectors.ctypes.data
    if batch.columns is not None:
        arrays.append(np.ascontiguousarray(batch.columns, np.int32))
        step.columns = arrays[-1].ctypes.data
    step.cache, (step.blocks, step.block_bytes) = cache.data.ctypes.data, cache.data.shape
    if batch.memories:
        arrays += list(lowered_memories(batch.memories))
        step.memories, step.memory_lengths = (each.ctypes.data for each in arrays[-2:])
        step.memory_block_bytes = batch.memories[0].layout.block_bytes
    step.outputs = (ctypes.c_void_p * len(step.outputs))(*(each.ctypes.data for each in outputs))
    return step, [arrays, vectors]


def callers_own(number: int, rows: int, width: int) -> np.ndarray:
    """A buffer for an output that the caller keeps."""
    return np.empty((rows, width), np.float32)


def namespaces(family: Any, tensors: Placed) -> tuple[SimpleNamespace, list[SimpleNamespace]]:
    """The weights as the family's code names them: outside the layers, and layer by layer."""
    outer = SimpleNamespace()
    layers = [SimpleNamespace() for _ in family.layers]
    made: dict[int, StoredWeight] = {}
    for (layer, name), tensor in tensors.items():
        weight = None
        if tensor is not None:
            head = layer is None and name == "head"
            early = layer is not None and layer * EARLY < len(layers)
            stored = StoredWeight(tensor, _transposed(tensor, family, layer, name), head, early)
            weight = made.setdefault(id(tensor) * 2 + head, stored)
        setattr(outer if layer is None else layers[layer], name, weight)
    return outer, layers


def _transposed(tensor: StoredTensor, family: Any, layer: int | None, name: str) -> bool:
    """Whether a tensor's data are [in, out]: the table says so, and the tensor was not turned when it was read."""
    table = family.weights() if layer is None else family.layer_weights(family.layers[layer])
    return table[name].transposed and not tensor.transposed


def _forward(taps: Taps, outputs: list[np.ndarray]) -> Forward:
    logits, *rest = outputs
    hidden = rest.pop(0) if taps.final_hidden else None
    count = len(taps.hidden_states)
    states = dict(zip(taps.hidden_states, rest[:count], strict=True)) if count else None
    early = dict(zip(taps.layer_logits, rest[count:], strict=True)) if taps.layer_logits else None
    return Forward(logits, hidden, states, layer_logits=early)


def available_threads() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def native_library() -> Library | None:
    """The kernels; None, and a warning that says why what follows is slow, where they were not built."""
    library = load_library()
    if library is None:
        warnings.warn(
            "the native kernels are not built, so NumPy does their work, slowly. "
            "Install a C++ compiler and then install fabula again, or use backend='torch'.",
            stacklevel=2,
        )
    return library
