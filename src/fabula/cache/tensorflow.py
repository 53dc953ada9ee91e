"""Keys and values in TensorFlow: a variable of blocks of all layers, written in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fabula.cache.blocks import BLOCK
from fabula.errors import NotSupportedError, OutOfMemoryError

Tensor = Any  # a tf.Tensor


class TFCache:
    """Storage for `blocks` blocks of BLOCK positions in every layer; who owns which is not known here.

    One more block lies behind them, where padding is written and which nobody reads.
    """

    def __init__(self, heads: Sequence[tuple[int, int]], blocks: int, dtype: tf.DType) -> None:
        """`heads`: for each layer its key heads and the features of one, which are the same everywhere."""
        if len(set(heads)) > 1:
            raise NotSupportedError(
                f"layers must have equal key heads on TensorFlow, got {sorted(set(heads))}. Use backend='torch'."
            )
        self.heads = tuple(heads)
        self.blocks = blocks
        self.dtype = dtype
        self.keys, self.values = (_variable(self._zeros(blocks + 1)) for _ in range(2))

    @property
    def nbytes(self) -> int:
        """What the keys and values take."""
        return 2 * int(np.prod(self.keys.shape)) * self.dtype.size

    @property
    def nowhere(self) -> int:
        """The slot of padding."""
        return self.blocks * BLOCK

    def read(self, tables: np.ndarray) -> tuple[Tensor, Tensor]:
        """The keys and values of R rows' blocks Int["R B"], all layers': Float["R B layers BLOCK heads features"]."""
        return tf.gather(self.keys, tables), tf.gather(self.values, tables)

    def write(self, slots: np.ndarray, keys: Tensor, values: Tensor) -> None:
        """Puts Float["layers' T heads features"] of the first layers at slots Int["T"]: block * BLOCK + place."""
        layers = np.arange(keys.shape[0])[:, None]
        places = np.stack(np.broadcast_arrays(slots // BLOCK, layers, slots % BLOCK), -1).astype(np.int32)
        self.keys.scatter_nd_update(places, tf.cast(keys, self.dtype))
        self.values.scatter_nd_update(places, tf.cast(values, self.dtype))

    def read_row(self, layer: int, blocks: Sequence[int], length: int) -> tuple[Tensor, Tensor]:
        """The keys and values that lie in a row's blocks, each [length, heads, features]."""
        keys, values = self.read(np.array(blocks, np.int32))
        shape = (-1, *self.heads[layer])
        return tf.reshape(keys[:, layer], shape)[:length], tf.reshape(values[:, layer], shape)[:length]

    def write_row(self, layer: int, blocks: Sequence[int], keys: Any, values: Any) -> None:
        """Puts keys and values, each [L, heads, features], into a row's blocks."""
        positions = np.arange(len(keys))
        owned = np.asarray(blocks, np.int32)
        places = np.stack([owned[positions // BLOCK], np.full_like(positions, layer), positions % BLOCK], -1)
        self.keys.scatter_nd_update(places, tf.cast(keys, self.dtype))
        self.values.scatter_nd_update(places, tf.cast(values, self.dtype))

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies whole blocks, all at once: a block may be a source and a target."""
        source, target = np.array(sources, np.int32), np.array(targets, np.int32)
        for variable in (self.keys, self.values):
            variable.scatter_update(tf.IndexedSlices(tf.gather(variable, source), target))

    def grow(self, blocks: int) -> None:
        """Makes room for `blocks` blocks, what is stored kept."""
        if blocks <= self.blocks:
            return
        more = self._zeros(blocks - self.blocks)
        self.keys, self.values = (_variable(tf.concat([part, more], 0)) for part in (self.keys, self.values))
        self.blocks = blocks

    def _zeros(self, blocks: int) -> Tensor:
        """Storage. Raises OutOfMemoryError."""
        heads = self.heads[0] if self.heads else (0, 0)
        try:
            return tf.zeros((blocks, len(self.heads), BLOCK, *heads), self.dtype)
        except tf.errors.ResourceExhaustedError as error:
            raise OutOfMemoryError(
                f"{blocks} cache blocks do not fit in memory: {error.message}. Ask for fewer rows or positions."
            ) from error


def _variable(value: Tensor) -> tf.Variable:
    return tf.Variable(value, trainable=False)
