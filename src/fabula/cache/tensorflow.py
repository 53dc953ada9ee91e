"""Keys and values in TensorFlow: variables of blocks, written in place, two for each group of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from fabula.cache.blocks import BLOCK
from fabula.cache.groups import LayerGroup, place_in
from fabula.cache.tensorflow_coding import decoded, encoded, turned
from fabula.errors import NotSupportedError, OutOfMemoryError

Tensor = Any  # a tf.Tensor


class Held(NamedTuple):
    """What a group of layers can read of R rows."""

    keys: Tensor  # Float["R B layers P heads features"], or UInt8 with bytes in place of features
    values: Tensor
    starts: Tensor  # Int["R"]: the position of the first of the B * P


class TFCache:
    """Storage for `blocks` blocks of BLOCK positions in every layer; who owns which is not known here.

    One more block lies behind them, where padding is written and which nobody reads.
    """

    def __init__(self, groups: Sequence[LayerGroup], blocks: int, dtype: tf.DType) -> None:
        """`groups`: all layers', with equal heads; `dtype`: of what is read. Raises NotSupportedError for others."""
        self.groups = tuple(groups)
        if len(set(self.heads)) > 1:
            raise NotSupportedError(
                f"layers must have equal key heads on TensorFlow, got {sorted(set(self.heads))}. Use backend='torch'."
            )
        self.blocks = blocks
        self.dtype = dtype
        self.parts = [self._variables(group, blocks + 1) for group in self.groups]  # keys and values

    @property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """For each layer its key heads and the features of one."""
        found = {layer: (group.kv_heads, group.head_dim) for group in self.groups for layer in group.layers}
        return tuple(found[layer] for layer in sorted(found))

    @property
    def nbytes(self) -> int:
        """What the keys and values take."""
        return sum(int(np.prod(part.shape)) * part.dtype.size for pair in self.parts for part in pair)

    @property
    def nowhere(self) -> int:
        """The slot of padding."""
        return self.blocks * BLOCK

    def read(self, reaches: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Held, ...]:
        """Of each group what lies in R rows' blocks, Int["R B"], of which the first begins at a position Int["R"]."""
        pairs = zip(self.parts, reaches, strict=True)
        return tuple(
            Held(tf.gather(keys, tables), tf.gather(values, tables), tf.constant(starts))
            for (keys, values), (tables, starts) in pairs
        )

    def write(self, slots: np.ndarray, keys: Tensor, values: Tensor) -> None:
        """Puts what is stored ["layers' T heads features"] of the first layers at slots Int["T"]."""
        count = keys.shape[0]
        for index, group in enumerate(self.groups):
            own = [layer for layer in group.layers if layer < count]
            if not own:
                continue
            parts = (part if len(own) == count else tf.gather(part, own) for part in (keys, values))
            self.put(index, slots, *parts)

    def put(self, index: int, slots: np.ndarray, keys: Tensor, values: Tensor) -> None:
        """The same of the first layers of one group; a slot is block * BLOCK + place."""
        layers = np.arange(keys.shape[0])[:, None]
        places = np.stack(np.broadcast_arrays(slots // BLOCK, layers, slots % BLOCK), -1).astype(np.int32)
        for variable, new in zip(self.parts[index], (keys, values), strict=True):
            variable.scatter_nd_update(places, tf.cast(new, variable.dtype))

    def read_row(self, layer: int, blocks: Sequence[int], length: int) -> tuple[Tensor, Tensor]:
        """The keys and values that lie in a row's blocks, each [length, heads, features]."""
        index, place = place_in(self.groups, layer)
        group, owned = self.groups[index], np.array(blocks, np.int32)
        rows = (tf.gather(part, owned)[:, place] for part in self.parts[index])
        stored = (tf.reshape(row, (-1, group.kv_heads, group.width))[:length] for row in rows)
        keys, values = (turned(decoded(part, group.coding, self.dtype), group.coding) for part in stored)
        return keys, values

    def write_row(self, layer: int, blocks: Sequence[int], keys: Any, values: Any) -> None:
        """Puts keys and values, each [L, heads, features], into a row's blocks."""
        index, place = place_in(self.groups, layer)
        positions, owned = np.arange(len(keys)), np.asarray(blocks, np.int32)
        places = np.stack([owned[positions // BLOCK], np.full_like(positions, place), positions % BLOCK], -1)
        for variable, new in zip(self.parts[index], (keys, values), strict=True):
            stored = encoded(tf.convert_to_tensor(new), self.groups[index].coding, self.dtype)
            variable.scatter_nd_update(places.astype(np.int32), stored)

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies whole blocks, all at once: a block may be a source and a target."""
        source, target = np.array(sources, np.int32), np.array(targets, np.int32)
        for variable in (part for pair in self.parts for part in pair):
            variable.scatter_update(tf.IndexedSlices(tf.gather(variable, source), target))

    def grow(self, blocks: int) -> None:
        """Makes room for `blocks` blocks, what is stored kept. Raises OutOfMemoryError."""
        if blocks <= self.blocks:
            return
        grown = []
        for group, pair in zip(self.groups, self.parts, strict=True):
            more = self._zeros(group, blocks - self.blocks)
            grown.append(tuple(_variable(tf.concat([part, more], 0)) for part in pair))
        self.parts, self.blocks = grown, blocks

    def _variables(self, group: LayerGroup, blocks: int) -> tuple[tf.Variable, ...]:
        return _variable(self._zeros(group, blocks)), _variable(self._zeros(group, blocks))

    def _zeros(self, group: LayerGroup, blocks: int) -> Tensor:
        """Storage. Raises OutOfMemoryError."""
        shape = (blocks, len(group.layers), BLOCK, group.kv_heads, group.width)
        try:
            return tf.zeros(shape, self.dtype if group.coding is None else tf.uint8)
        except tf.errors.ResourceExhaustedError as error:
            raise OutOfMemoryError(
                f"{blocks} cache blocks do not fit in memory: {error.message}. Ask for fewer rows or positions."
            ) from error


def _variable(value: Tensor) -> tf.Variable:
    return tf.Variable(value, trainable=False)
