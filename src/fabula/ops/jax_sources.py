"""Where the keys and values of a rectangle's attention lie in JAX: in blocks, side by side, or in this pass alone.

A source is made anew at each trace. It holds the arrays as they are after the layers so far, so that whoever runs
layers in a loop takes `state` along and puts it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from fabula.cache.coding import Coding
from fabula.cache.groups import LayerGroup, place_in
from fabula.cache.jax import State
from fabula.cache.jax_coding import decoded, encoded
from fabula.ops.jax_attention import NOWHERE

Array = jax.Array

__all__ = ["BlockSource", "DenseSource", "OwnSource", "Place", "Source", "heads_first", "places_of"]


class Place(NamedTuple):
    """Where a layer's keys and values are: of which group, and which of its layers, a number or one in a trace."""

    group: int
    layer: Any


def places_of(groups: Sequence[LayerGroup]) -> tuple[Place, ...]:
    """The place of each layer."""
    return tuple(Place(*place_in(groups, layer)) for layer in range(sum(len(group.layers) for group in groups)))


class Source(Protocol):
    """Takes a layer's new keys and values, and gives all that its queries may see."""

    state: Any  # what changes from layer to layer, a pytree

    def key_positions(self, window: int | None) -> Array:
        """Int["R|1 K"]: the position in its row of each key that `exchange` gives; beyond a query's it is unseen."""

    def coding(self, place: Place) -> Coding | None:
        """How a layer's heads are stored: where they are codes, what `exchange` gives is turned."""

    def exchange(self, place: Place, keys: Array, values: Array) -> tuple[Array, Array]:
        """Keeps keys and values ["R N heads features"]; returns those of the whole rows, ["R heads K features"]."""


class BlockSource:
    """Blocks behind a table for each row and group; arrays of each group [layers, slots, heads, features]."""

    def __init__(self, state: State, slots: Array, tables: Sequence[Array], starts: Sequence[Array], block: int):
        """`slots` Int["R N"]: where this step's go, those beyond the last being dropped; of each group, `tables`
        Int["R B"] and the position `starts` Int["R"] at which the first of these blocks begins.
        """
        self.state = state
        self.slots = slots
        self.tables = tables
        self.starts = starts
        self.block = block

    def key_positions(self, window: int | None) -> Array:
        group = _seeing(self.state.groups, window)
        return _from(self.starts[group], self.tables[group].shape[1] * self.block)

    def coding(self, place: Place) -> Coding | None:
        return self.state.groups[place.group].coding

    def exchange(self, place: Place, keys: Array, values: Array) -> tuple[Array, Array]:
        coding, slots = self.coding(place), self.slots.reshape(-1)

        def put(array: Array, new: Array) -> Array:
            flat = encoded(new.reshape(-1, *new.shape[2:]), coding, array.dtype)
            return array.at[place.layer, slots].set(flat, mode="drop")

        self.state, *own = _with(self.state, place.group, put, (keys, values))
        there_keys, there_values = (decoded(self._read(array, place), coding, keys.dtype) for array in own)
        return there_keys, there_values

    def _read(self, array: Array, place: Place) -> Array:
        tables = self.tables[place.group]
        rows, width = tables.shape
        blocks = array.reshape(array.shape[0], -1, self.block, *array.shape[2:])[place.layer, tables]
        return heads_first(blocks.reshape(rows, width * self.block, *array.shape[2:]))


class DenseSource:
    """Rows side by side; arrays of each group [layers, R, heads, L, features], and where their columns start.

    With the heads before the columns a step's products read keys and values as they lie.
    """

    def __init__(self, state: State, positions: Array):
        """`positions` Int["R N"]: where this step's go."""
        self.state = state
        self.positions = positions

    def key_positions(self, window: int | None) -> Array:
        group = _seeing(self.state.groups, window)
        return _from(self.state.starts[group], self.state.keys[group].shape[3])

    def coding(self, place: Place) -> Coding | None:
        return self.state.groups[place.group].coding

    def exchange(self, place: Place, keys: Array, values: Array) -> tuple[Array, Array]:
        coding, heads = self.coding(place), jnp.arange(keys.shape[2])
        rows = jnp.arange(self.positions.shape[0])[:, None, None]
        columns = self.positions - self.state.starts[place.group][:, None]

        def put(array: Array, new: Array) -> Array:
            return array.at[place.layer, rows, heads, columns[..., None]].set(encoded(new, coding, array.dtype))

        self.state, *own = _with(self.state, place.group, put, (keys, values))
        there_keys, there_values = (decoded(array[place.layer], coding, keys.dtype) for array in own)
        return there_keys, there_values


class OwnSource:
    """Nothing but this pass: its keys are all there are."""

    def __init__(self, positions: Array, valid: Array | None = None):
        """`positions` Int["R N"]; `valid` Bool["R N"]: which of them are tokens; None: all."""
        self.state = ()
        self._positions = positions if valid is None else jnp.where(valid, positions, NOWHERE)

    def key_positions(self, window: int | None) -> Array:
        return self._positions

    def coding(self, place: Place) -> Coding | None:
        return None

    def exchange(self, place: Place, keys: Array, values: Array) -> tuple[Array, Array]:
        return heads_first(keys), heads_first(values)


def heads_first(array: Array) -> Array:
    """["R K heads features"] as ["R heads K features"]."""
    return jnp.swapaxes(array, 1, 2)


def _seeing(groups: Sequence[LayerGroup], window: int | None) -> int:
    """A group of layers with this window."""
    return next(index for index, group in enumerate(groups) if group.window == window)


def _from(starts: Array, count: int) -> Array:
    """Int["R K"]: so many positions of each row."""
    return starts[:, None] + jnp.arange(count, dtype=jnp.int32)


def _with(
    state: State, group: int, put: Callable[[Array, Array], Array], new: tuple[Array, Array]
) -> tuple[State, Array, Array]:
    """The state with a group's new keys and values put among its own; and its arrays then."""
    keys, values = put(state.keys[group], new[0]), put(state.values[group], new[1])
    whole = replace(state, keys=_replaced(state.keys, group, keys), values=_replaced(state.values, group, values))
    return whole, keys, values


def _replaced(arrays: tuple[Array, ...], index: int, array: Array) -> tuple[Array, ...]:
    return (*arrays[:index], array, *arrays[index + 1 :])
