"""Where the keys and values of a rectangle's attention lie in JAX: in blocks, side by side, or in this pass alone.

A source is made anew at each trace. It holds the arrays as they are after the layers so far, so that whoever runs
layers in a loop takes `state` along and puts it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from fabula.ops.jax_attention import NOWHERE

Array = jax.Array
State = Any  # a pytree of arrays

__all__ = ["BlockSource", "DenseSource", "OwnSource", "Place", "Source", "heads_first", "places_of"]


class Place(NamedTuple):
    """Where a layer's keys and values are: which array, and which of its layers, a number or one in a trace."""

    group: int
    layer: Any


def places_of(heads: Sequence[tuple[int, int]]) -> tuple[Place, ...]:
    """The place of each layer, of which those with equal heads share an array."""
    shapes = list(dict.fromkeys(heads))
    counts = [0] * len(shapes)
    found = []
    for shape in heads:
        group = shapes.index(shape)
        found.append(Place(group, counts[group]))
        counts[group] += 1
    return tuple(found)


class Source(Protocol):
    """Takes a layer's new keys and values, and gives all that its queries may see."""

    state: State  # what changes from layer to layer

    @property
    def key_positions(self) -> Array:
        """Int["R|1 K"]: the position in its row of each key that `exchange` gives; beyond a query's it is unseen."""

    def exchange(self, place: Place, keys: Array, values: Array) -> tuple[Array, Array]:
        """Keeps keys and values ["R N heads features"]; returns those of the whole rows, ["R heads K features"]."""


class BlockSource:
    """Blocks behind a table for each row; arrays of each group [layers, slots, heads, features]."""

    def __init__(self, state: tuple[tuple[Array, ...], tuple[Array, ...]], slots: Array, tables: Array, block: int):
        """`slots` Int["R N"]: where this step's go, those beyond the last being dropped; `tables` Int["R B"]."""
        self.state = state
        self.slots = slots
        self.tables = tables
        self.block = block

    @property
    def key_positions(self) -> Array:
        return jnp.arange(self.tables.shape[1] * self.block, dtype=jnp.int32)[None]

    def exchange(self, place: Place, keys: Array, values: Array) -> tuple[Array, Array]:
        group = place.group
        new = [self._written(part[group], place.layer, x) for part, x in zip(self.state, (keys, values), strict=True)]
        self.state = (_replaced(self.state[0], group, new[0]), _replaced(self.state[1], group, new[1]))
        return self._read(new[0], place.layer), self._read(new[1], place.layer)

    def _written(self, array: Array, layer: Any, new: Array) -> Array:
        flat = new.reshape(-1, *new.shape[2:]).astype(array.dtype)
        return array.at[layer, self.slots.reshape(-1)].set(flat, mode="drop", unique_indices=False)

    def _read(self, array: Array, layer: Any) -> Array:
        rows, width = self.tables.shape
        blocks = array.reshape(array.shape[0], -1, self.block, *array.shape[2:])
        return heads_first(blocks[layer, self.tables].reshape(rows, width * self.block, *array.shape[2:]))


class DenseSource:
    """Rows side by side; arrays of each group [layers, R, heads, L, features], a row's position p in column p.

    With the heads before the columns a step's products read keys and values as they lie.
    """

    def __init__(self, state: tuple[tuple[Array, ...], tuple[Array, ...]], positions: Array):
        """`positions` Int["R N"]: where this step's go."""
        self.state = state
        self.positions = positions

    @property
    def key_positions(self) -> Array:
        return jnp.arange(self.state[0][0].shape[3], dtype=jnp.int32)[None]

    def exchange(self, place: Place, keys: Array, values: Array) -> tuple[Array, Array]:
        group, heads = place.group, jnp.arange(keys.shape[2])
        rows = jnp.arange(self.positions.shape[0])[:, None, None]
        where = (place.layer, rows, heads, self.positions[..., None])
        new = [
            part[group].at[where].set(x.astype(part[group].dtype))
            for part, x in zip(self.state, (keys, values), strict=True)
        ]
        self.state = (_replaced(self.state[0], group, new[0]), _replaced(self.state[1], group, new[1]))
        return new[0][place.layer], new[1][place.layer]


class OwnSource:
    """Nothing but this pass: its keys are all there are."""

    def __init__(self, positions: Array, valid: Array | None = None):
        """`positions` Int["R N"]; `valid` Bool["R N"]: which of them are tokens; None: all."""
        self.state = ()
        self._positions = positions if valid is None else jnp.where(valid, positions, NOWHERE)

    @property
    def key_positions(self) -> Array:
        return self._positions

    def exchange(self, place: Place, keys: Array, values: Array) -> tuple[Array, Array]:
        return heads_first(keys), heads_first(values)


def heads_first(array: Array) -> Array:
    """["R K heads features"] as ["R heads K features"]."""
    return jnp.swapaxes(array, 1, 2)


def _replaced(arrays: tuple[Array, ...], index: int, array: Array) -> tuple[Array, ...]:
    return (*arrays[:index], array, *arrays[index + 1 :])
