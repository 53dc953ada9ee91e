"""Keys and values in JAX: arrays of blocks, replaced by those that a compiled step gives back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fabula.arrays.jax_meshes import mesh_of, within
from fabula.cache.blocks import BLOCK
from fabula.errors import OutOfMemoryError

Array = jax.Array
State = tuple[tuple[Array, ...], tuple[Array, ...]]  # keys and values: an array a group of layers with equal heads

LEAST = 16  # blocks; more are there in powers of two, so that programs are compiled for few sizes


class JaxCache:
    """Storage for `blocks` blocks of BLOCK positions in every layer; who owns which is not known here.

    An array is [layers, slots, heads, features], a slot being block * BLOCK + place in the block.
    """

    def __init__(self, heads: Sequence[tuple[int, int]], blocks: int, dtype: Any, place: Any = None) -> None:
        """`heads`: for each layer its key heads and the features of one; `place`: a device or a sharding."""
        self.heads = tuple(heads)
        self.blocks = blocks
        self.dtype = dtype
        self.place = place  # None: wherever arrays go
        shapes = [(self.heads.count(shape), size(blocks) * BLOCK, *shape) for shape in dict.fromkeys(self.heads)]
        self.state: State = (self._zeros(shapes), self._zeros(shapes))

    def _zeros(self, shapes: Sequence[tuple[int, ...]]) -> tuple[Array, ...]:
        """Storage. Raises OutOfMemoryError."""
        try:
            return tuple(self._placed(jnp.zeros(shape, self.dtype)) for shape in shapes)
        except (RuntimeError, MemoryError) as error:
            raise OutOfMemoryError(
                f"{self.blocks} cache blocks do not fit in memory: {error}. Ask for fewer rows or positions."
            ) from error

    def _placed(self, array: Array) -> Array:
        return array if self.place is None else jax.device_put(array, self.place)

    @property
    def nbytes(self) -> int:
        """What the keys and values take."""
        return sum(int(array.nbytes) for part in self.state for array in part)

    @property
    def is_lost(self) -> bool:
        """Whether a step that failed has used up what was stored."""
        return any(array.is_deleted() for part in self.state for array in part)

    @property
    def nowhere(self) -> int:
        """A slot that there is not: what is written there is dropped."""
        return int(self.state[0][0].shape[1]) if self.state[0] else 0

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
            shapes = [(array.shape[0], size(blocks) * BLOCK, *array.shape[2:]) for array in self.state[0]]
            with within(mesh_of(self.state)):
                larger: State = (self._zeros(shapes), self._zeros(shapes))
                self.state = _filled(larger, self.state)
        self.blocks = blocks

    def read_row(self, layer: int, blocks: Sequence[int], length: int) -> tuple[Array, Array]:
        """The keys and values that lie in a row's blocks, each [length, heads, features]."""
        group, place = self._where(layer)
        with within(mesh_of(self.state)):
            slots = jnp.asarray(self._slots(blocks, length))
            return self.state[0][group][place, slots], self.state[1][group][place, slots]

    def write_row(self, layer: int, blocks: Sequence[int], keys: Any, values: Any) -> None:
        """Puts keys and values, each [L, heads, features] of any framework NumPy reads, into a row's blocks."""
        group, place = self._where(layer)
        parts = []
        with within(mesh_of(self.state)):
            slots = jnp.asarray(self._slots(blocks, len(keys)))
            for part, given in zip(self.state, (keys, values), strict=True):
                array = part[group].at[place, slots].set(jnp.asarray(given, part[group].dtype))
                parts.append((*part[:group], array, *part[group + 1 :]))
        self.state = (parts[0], parts[1])

    def _where(self, layer: int) -> tuple[int, int]:
        """Which array, and which of its layers."""
        return list(dict.fromkeys(self.heads)).index(self.heads[layer]), self.heads[:layer].count(self.heads[layer])

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
