"""What an encoder leaves for a decoder in JAX, and how the rows of a step find their part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fabula.errors import ArgumentError
from fabula.models.family import EncoderDecoder
from fabula.models.jax_pass import Program
from fabula.models.jax_weights import Weights
from fabula.ops.jax import Inputs, JaxOps, MemoryRows, Shared
from fabula.ops.jax_sources import OwnSource
from fabula.ops.rectangles import Rectangle, bucket

Array = jax.Array

__all__ = ["Joined", "Memories", "Memory", "joined", "memories_of", "memory_arrays"]


@dataclass(frozen=True, eq=False, slots=True)
class Memories:
    """What each decoder layer reads of an encoder's output for M inputs; M and S are buckets."""

    keys: Array  # Float["layers M S heads head_dim"]
    values: Array
    mask: np.ndarray  # Bool["M S"]: which columns are tokens
    rows: int  # how many of the M are inputs
    columns: int  # how many of the S are the encoder's

    def each(self) -> list[Memory]:
        """One for each input."""
        return [Memory(self, index) for index in range(self.rows)]


@dataclass(frozen=True, eq=False, slots=True)
class Memory:
    """One input's part; all rows that continue from that input share it."""

    of: Memories
    index: int


@dataclass(frozen=True, slots=True)
class Joined:
    """The memories of a step's rows, as one, and where each row's is."""

    whole: Memories
    lines: np.ndarray  # Int["rows of the batch"]
    columns: tuple[int, ...]  # of each row

    def rows(self, part: Rectangle) -> MemoryRows:
        """What the rows of a rectangle read."""
        lines = np.zeros(part.tokens.shape[0], np.int32)
        lines[: len(part.rows)] = self.lines[part.rows]
        return MemoryRows(self.whole.keys, self.whole.values, self.whole.mask, lines)

    def by_row(self, parts: Sequence[Rectangle], values: Sequence[Any]) -> tuple[np.ndarray, ...]:
        """Of each row that computes anything, in the batch's order, Float["heads new columns"]."""
        found = {}
        for part, value in zip(parts, values, strict=True):
            weights = np.asarray(value, np.float32)
            for place, (row, count) in enumerate(zip(part.rows.tolist(), part.counts.tolist(), strict=True)):
                found[row] = weights[place, :, :count, : self.columns[row]]
        return tuple(found[row] for row in sorted(found))


def joined(memories: Sequence[Any]) -> Joined | None:
    """The memories of a batch's rows; None where the model has none. Raises ArgumentError for another model's."""
    if not memories:
        return None
    for memory in memories:
        if not isinstance(memory, Memory):
            raise ArgumentError(
                f"a row's memory must be what `encode` of its model returned, got {type(memory).__name__}."
            )
    parts = tuple(dict.fromkeys(memory.of for memory in memories))
    firsts = dict(zip(parts, np.cumsum([0, *(len(part.mask) for part in parts)]).tolist(), strict=False))
    lines = np.array([firsts[memory.of] + memory.index for memory in memories], np.int32)
    whole = parts[0] if len(parts) == 1 else _together(parts)
    return Joined(whole, lines, tuple(memory.of.columns for memory in memories))


@lru_cache(maxsize=1)  # the same rows take many steps
def _together(parts: tuple[Memories, ...]) -> Memories:
    """Several as one: columns padded to the widest, rows to a bucket."""
    width = max(part.mask.shape[1] for part in parts)
    count = sum(len(part.mask) for part in parts)
    more = bucket(count) - count

    def stacked(arrays: Sequence[Array]) -> Array:
        wide = [jnp.pad(x, ((0, 0), (0, 0), (0, width - x.shape[2]), (0, 0), (0, 0))) for x in arrays]
        return jnp.pad(jnp.concatenate(wide, 1), ((0, 0), (0, more), (0, 0), (0, 0), (0, 0)))

    masks = [np.pad(part.mask, ((0, 0), (0, width - part.mask.shape[1]))) for part in parts]
    mask = np.pad(np.concatenate(masks), ((0, more), (0, 0)))
    return Memories(stacked([p.keys for p in parts]), stacked([p.values for p in parts]), mask, count, width)


def memories_of(program: Program, weights: Weights, hidden: np.ndarray, mask: np.ndarray) -> Memories:
    """What every decoder layer reads of the encoder's vectors [M, S, D], computed once."""
    rows, columns = mask.shape
    more = ((0, bucket(rows) - rows), (0, bucket(columns, 16) - columns))
    keys, values = _compiled(program)(weights, np.pad(hidden, (*more, (0, 0))))
    return Memories(keys, values, np.pad(mask, more), rows, columns)


@lru_cache(maxsize=16)
def _compiled(program: Program) -> Any:
    return jax.jit(lambda weights, hidden: memory_arrays(program, weights, hidden))


def memory_arrays(program: Program, weights: Weights, hidden: Any) -> tuple[Array, Array]:
    """Traced: keys and values ["layers M S heads head_dim"] of vectors [M, S, D]."""
    family, plan = program.family, program.plan
    assert isinstance(family, EncoderDecoder)
    rows, columns, width = hidden.shape
    places = jnp.zeros((1, 1), jnp.int32)
    inputs = Inputs(places, places)
    ops = JaxOps(inputs, Shared(inputs, (), places, jnp.float32), OwnSource(places))
    outside = plan.prepared_outside(weights.outside)
    flat = hidden.reshape(rows * columns, width).astype(outside.embed.dtype)
    found: dict[int, Any] = {}
    for period, stack in zip(plan.periods, weights.stacks, strict=True):
        for place, own in enumerate(stack):
            layers = list(period.layers(place))
            for turn, layer in enumerate(layers):
                one = own if len(layers) == 1 else {name: array[turn] for name, array in own.items()}
                found[layer] = family.memory(ops, flat, plan.prepared(weights.shared, one), family.layers[layer])
    shape = (rows, columns, -1, family.layers[0].attention.head_dim)
    keys, values = (jnp.stack([found[layer][side].reshape(shape) for layer in sorted(found)]) for side in (0, 1))
    return keys, values
