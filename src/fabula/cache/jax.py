"""Keys and values in JAX: arrays of blocks, replaced by those that a compiled step gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fabula.arrays.jax_meshes import mesh_of, within
from fabula.cache.blocks import BLOCK
from fabula.cache.groups import LayerGroup, place_in
from fabula.cache.jax_coding import decoded, encoded, turned
from fabula.errors import OutOfMemoryError

Array = jax.Array

LEAST = 16  # blocks; more are there in powers of two, so that programs are compiled for few sizes


@dataclass(frozen=True, slots=True)
class State:
    """Keys and values, each an array a group of layers. A pytree."""

    keys: tuple[Array, ...]
    values: tuple[Array, ...]
    groups: tuple[LayerGroup, ...]  # static
    starts: tuple[Array, ...] = ()  # of rows side by side, each group's Int["R"]: the position in the first column


jax.tree_util.register_dataclass(State, data_fields=["keys", "values", "starts"], meta_fields=["groups"])


class JaxCache:
    """Storage for `blocks` blocks of BLOCK positions in every layer; who owns which is not known here.

    An array is [layers, slots, heads, features], a slot being block * BLOCK + place in the block; or UInt8 with bytes
    in place of features, in groups that are stored as codes.
    """

    def __init__(self, groups: Sequence[LayerGroup], blocks: int, dtype: Any, place: Any = None) -> None:
        """`groups`: all layers'; `dtype`: of what is read; `place`: a device or a sharding."""
        self.groups = tuple(groups)
        self.blocks = blocks
        self.dtype = dtype
        self.place = place  # None: wherever arrays go
        self.state = self._zeros(size(blocks))

    def _zeros(self, blocks: int) -> State:
        """Storage. Raises OutOfMemoryError."""
        try:
            keys, values = (tuple(self._part(group, blocks) for group in self.groups) for _ in range(2))
        except (RuntimeError, MemoryError) as error:
            raise OutOfMemoryError(
                f"{self.blocks} cache blocks do not fit in memory: {error}. Ask for fewer rows or positions."
            ) from error
        return State(keys, values, self.groups)

    def _part(self, group: LayerGroup, blocks: int) -> Array:
        shape = (len(group.layers), blocks * BLOCK, group.kv_heads, group.width)
        array = jnp.zeros(shape, self.dtype if group.coding is None else jnp.uint8)
        return array if self.place is None else jax.device_put(array, self.place)

    @property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """For each layer its key heads and the features of one."""
        found = {layer: (group.kv_heads, group.head_dim) for group in self.groups for layer in group.layers}
        return tuple(found[layer] for layer in sorted(found))

    @property
    def nbytes(self) -> int:
        """What the keys and values take."""
        return sum(int(array.nbytes) for array in jax.tree.leaves(self.state))

    @property
    def is_lost(self) -> bool:
        """Whether a step that failed has used up what was stored."""
        return any(array.is_deleted() for array in jax.tree.leaves(self.state))

    @property
    def nowhere(self) -> int:
        """A slot that there is not: what is written there is dropped."""
        return size(self.blocks) * BLOCK

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies whole blocks, all at once: a block may be a source and a target."""
        count = size(len(sources), 1)
        pairs = np.zeros((2, count), np.int32)
        pairs[1] = self.nowhere // BLOCK  # what is padded is copied nowhere
        pairs[0, : len(sources)], pairs[1, : len(targets)] = sources, targets
        with within(mesh_of(self.state)):
            self.state = _copied(self.state, *pairs)

    def grow(self, blocks: int) -> None:
        """Makes room for `blocks` blocks, what is stored kept."""
        if blocks <= self.blocks:
            return
        if size(blocks) > size(self.blocks):
            with within(mesh_of(self.state)):
                self.state = _filled(self._zeros(size(blocks)), self.state)
        self.blocks = blocks

    def read_row(self, layer: int, blocks: Sequence[int], length: int) -> tuple[Array, Array]:
        """The keys and values that lie in a row's blocks, each [length, heads, features]."""
        index, place = place_in(self.groups, layer)
        coding = self.groups[index].coding
        with within(mesh_of(self.state)):
            slots = jnp.asarray(self._slots(blocks, length))
            stored = (part[index][place, slots] for part in (self.state.keys, self.state.values))
            keys, values = (turned(decoded(part, coding, self.dtype), coding) for part in stored)
        return keys, values

    def write_row(self, layer: int, blocks: Sequence[int], keys: Any, values: Any) -> None:
        """Puts keys and values, each [L, heads, features] of any framework NumPy reads, into a row's blocks."""
        index, place = place_in(self.groups, layer)
        coding, new = self.groups[index].coding, []
        with within(mesh_of(self.state)):
            slots = jnp.asarray(self._slots(blocks, len(keys)))
            for part, given in ((self.state.keys, keys), (self.state.values, values)):
                stored = encoded(jnp.asarray(given), coding, self.dtype)
                new.append((*part[:index], part[index].at[place, slots].set(stored), *part[index + 1 :]))
        self.state = State(new[0], new[1], self.groups)

    @staticmethod
    def _slots(blocks: Sequence[int], length: int) -> np.ndarray:
        positions = np.arange(length)
        return np.asarray(blocks, np.int32)[positions // BLOCK] * BLOCK + (positions % BLOCK).astype(np.int32)


def size(blocks: int, least: int = LEAST) -> int:
    """How many blocks there are room for where so many are asked for."""
    return max(least, 1 << max(0, blocks - 1).bit_length())


@partial(jax.jit, donate_argnums=0)
def _copied(state: State, sources: Array, targets: Array) -> State:
    def one(array: Array) -> Array:
        blocks = array.reshape(array.shape[0], -1, BLOCK, *array.shape[2:])
        return blocks.at[:, targets].set(blocks[:, sources], mode="drop").reshape(array.shape)

    return jax.tree.map(one, state)


@partial(jax.jit, donate_argnums=0)
def _filled(larger: State, state: State) -> State:
    return jax.tree.map(lambda new, old: jax.lax.dynamic_update_slice(new, old, (0,) * old.ndim), larger, state)
