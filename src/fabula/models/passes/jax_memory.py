"""What an encoder leaves for a decoder in JAX: the keys and values that its layers read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fabula.models.families.family import EncoderDecoder
from fabula.models.passes.jax import Program
from fabula.models.passes.memories import Joined, Memories
from fabula.models.weights.jax import Weights
from fabula.ops.jax import Inputs, JaxOps, MemoryRows, OwnMemories, Shared
from fabula.ops.jax_sources import OwnSource
from fabula.ops.rectangles import Rectangle, bucket

Array = jax.Array

__all__ = ["memories_of", "memory_arrays", "own_memories", "rows_of", "together"]


def rows_of(memories: Joined, part: Rectangle) -> MemoryRows:
    """What the rows of a rectangle read."""
    whole = memories.whole
    return MemoryRows(whole.keys, whole.values, whole.mask, memories.lines_of(part))


def own_memories(memories: Joined | None, rows: int) -> OwnMemories | None:
    """What each of so many rows reads, the batch's first; None where the model has no encoder."""
    if memories is None:
        return None
    whole, lines = memories.whole, memories.first_lines(rows)
    keys, values = _by_row((whole.keys, whole.values), lines)
    return OwnMemories(keys, values, whole.mask[lines])


@jax.jit
def _by_row(arrays: Sequence[Array], lines: Array) -> tuple[Array, ...]:
    """Arrays ["layers M S heads head_dim"] as ["layers R heads S head_dim"]."""
    return tuple(jnp.swapaxes(array[:, lines], 2, 3) for array in arrays)


def together(arrays: Sequence[Array], columns: int, rows: int) -> Array:
    """Arrays ["layers M S heads head_dim"] as one, each padded to the columns, all of them to the rows."""
    wide = [jnp.pad(x, ((0, 0), (0, 0), (0, columns - x.shape[2]), (0, 0), (0, 0))) for x in arrays]
    count = sum(x.shape[1] for x in arrays)
    return jnp.pad(jnp.concatenate(wide, 1), ((0, 0), (0, rows - count), (0, 0), (0, 0), (0, 0)))


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
    source = OwnSource(places)
    ops = JaxOps(inputs, Shared(inputs, (), source, jnp.float32), source)
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
