"""A model with an encoder on the CPU kernels: programs of the encoder, of what it leaves, and of the decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fabula.cache.blocks import BLOCK
from fabula.cache.native import NativeCache, NativeLayout, native_layout
from fabula.cache.native_memory import NativeMemory, check_memories
from fabula.errors import NotSupportedError
from fabula.kernels.sampling import RowChoice
from fabula.ops.layers import unrolled
from fabula.ops.native import AnyProgram, NativeModel, Placed, callers_own, namespaces
from fabula.ops.native_graph import Node, RecordingOps
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps

POSITIONS = 2048  # that are encoded in one step, if they are of more than one row


class NativeSeq2Seq(NativeModel):
    """The decoder, as `NativeModel` runs it, and its encoder.

    What the encoder's layers attend to lies in blocks of one layer, which each of them writes anew.
    """

    def __init__(self, family: Any, tensors: Placed, encoder_tensors: Placed, **options: Any) -> None:
        """`tensors`: those of the decoder and outside; what is raised, and the options, are NativeModel's."""
        self._encoder_weights = namespaces(family.encoder, encoder_tensors)
        self._encoders: dict[tuple[int, ...], AnyProgram] = {}
        self._rememberer: AnyProgram | None = None
        self._remembered: NativeLayout | None = None
        super().__init__(family, tensors, **options)
        self._encoder_layout = _one_layer(family.encoder.layers)

    def step(self, batch: Batch, cache: NativeCache, taps: Taps = NO_TAPS) -> Forward:
        """The decoder's step. Raises ArgumentError for rows without a memory."""
        check_memories(batch.memories, len(batch.first), self._memory_layout())
        return super().step(batch, cache, taps)

    def step_apart(self, batch: Batch, cache: NativeCache, taps: Taps = NO_TAPS) -> Forward:
        """The same, with outputs that are the caller's to keep."""
        check_memories(batch.memories, len(batch.first), self._memory_layout())
        return super().step_apart(batch, cache, taps)

    def burst(
        self, batch: Batch, cache: NativeCache, rows: Sequence[RowChoice], ends: np.ndarray, steps: int
    ) -> np.ndarray:
        """As NativeModel's; each row has a memory."""
        check_memories(batch.memories, len(batch.first), self._memory_layout())
        return super().burst(batch, cache, rows, ends, steps)

    def encode(
        self,
        rows: Sequence[np.ndarray],
        vectors: Sequence[np.ndarray] | None = None,
        shown: tuple[int, ...] = (),
        columns: Sequence[np.ndarray] | None = None,
    ) -> list[np.ndarray]:
        """What the encoder makes of rows of ids, Int["S"], or of vectors in their place, Float["S D"].

        `columns`, Int["S"] of each row: where its tokens stand, if not one behind the other.

        Float32["T D"] of all rows end to end: after the last norm, and then what each layer `shown` is given.
        """
        if shown not in self._encoders:
            self._encoders[shown] = self._scheduled(self._record_encoder(shown), self._encoder_layout)
        parts = []
        for begin, end in _portions([len(row) for row in rows]):
            given = None if vectors is None else np.concatenate(vectors[begin:end])
            batch, blocks = _whole_rows(rows[begin:end], given)
            if columns is not None:
                batch = replace(batch, columns=np.concatenate(columns[begin:end]))
            cache = NativeCache(self._encoder_layout, blocks)
            parts.append(self._execute(self._encoders[shown], batch, cache, callers_own))
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    def remember(self, rows: Sequence[np.ndarray]) -> list[NativeMemory]:
        """What the decoder's layers read of the encoder's vectors, Float32["S D"] of each row, computed once."""
        layout = self._memory_layout()
        if self._rememberer is None:
            self._rememberer = self._scheduled(self._record_memory(), layout)
        memories = []
        for begin, end in _portions([len(row) for row in rows]):
            empty = [np.zeros(len(row), np.int32) for row in rows[begin:end]]
            batch, blocks = _whole_rows(empty, np.concatenate(rows[begin:end]))
            cache = NativeCache(layout, blocks)
            self._execute(self._rememberer, batch, cache, callers_own)
            for table, row in zip(batch.tables, rows[begin:end], strict=True):
                first, count = int(table[0]), -(-len(row) // BLOCK)
                memories.append(NativeMemory(layout, cache.data[first : first + count], len(row)))
        return memories

    def _everything(self) -> list[Node]:
        return [*self._record_encoder(()), *self._record_memory(), *super()._everything()]

    def _memory_layout(self) -> NativeLayout:
        if self._remembered is None:
            heads = [(layer.memory.kv_heads, layer.memory.head_dim) for layer in self.family.layers]
            self._remembered = native_layout(heads, self._float_bits)
        return self._remembered

    def _record_encoder(self, shown: tuple[int, ...]) -> list[Node]:
        ops, encoder, (outer, layers) = RecordingOps(), self.family.encoder, self._encoder_weights
        states: dict[int, Node] = {}
        last = unrolled(encoder, ops, encoder.embed(ops, outer), layers, states.__setitem__)
        return [ops.scored(encoder.final(ops, last, outer)), *(ops.scored(states[index]) for index in shown)]

    def _record_memory(self) -> list[Node]:
        """The encoder's vectors are given in place of embeddings."""
        ops, (outer, layers) = RecordingOps(), self._weights
        encoded = ops.embed(outer.embed)
        pairs = zip(self.family.layers, layers, strict=True)
        return [ops.store(layer, *self.family.memory(ops, encoded, weights, layer)) for layer, weights in pairs]


def _one_layer(layers: Sequence[Any]) -> NativeLayout:
    """Where all of these layers, one after the other, have their keys and values. Raises NotSupportedError."""
    heads = {(layer.attention.kv_heads, layer.attention.head_dim) for layer in layers}
    if len(heads) != 1:
        raise NotSupportedError(f"an encoder's layers must have heads of one size, got {sorted(heads)}.")
    one = native_layout(list(heads), 32)
    return NativeLayout(one.layers * len(layers), one.block_bytes)


def _portions(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Rows [begin, end) that are computed in one step: no more positions than there shall be, or one row."""
    begin, positions = 0, 0
    for end, length in enumerate(lengths):
        if end > begin and positions + length > POSITIONS:
            yield begin, end
            begin, positions = end, 0
        positions += length
    if lengths:
        yield begin, len(lengths)


def _whole_rows(rows: Sequence[np.ndarray], vectors: Any) -> tuple[Batch, int]:
    """The batch of rows from their starts, all positions scored, each in blocks of its own; and how many blocks."""
    counts = [len(row) for row in rows]
    needed = [-(-count // BLOCK) for count in counts]
    firsts = np.cumsum([0, *needed])
    tables = firsts[:-1, None] + np.arange(max(needed))
    batch = Batch(
        np.concatenate(rows).astype(np.int32),
        np.cumsum([0, *counts]).astype(np.int32),
        np.zeros(len(rows), np.int32),
        np.minimum(tables, firsts[-1] - 1).astype(np.int32),
        np.arange(sum(counts), dtype=np.int32),
        vectors,
    )
    return batch, int(firsts[-1])
