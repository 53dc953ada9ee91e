"""What an encoder leaves for a decoder in TensorFlow: the keys and values that its layers read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from fabula.models.families.family import EncoderDecoder
from fabula.models.passes.memories import Joined
from fabula.models.weights.tensorflow import Weights
from fabula.ops.rectangles import Rectangle
from fabula.ops.tensorflow import Frame, MemoryRows, TensorFlowOps

Tensor = Any  # a tf.Tensor


def rows_of(memories: Joined, part: Rectangle) -> MemoryRows:
    """What the rows of a rectangle read."""
    whole = memories.whole
    return MemoryRows(whole.keys, whole.values, tf.constant(whole.mask), tf.constant(memories.lines_of(part)))


def own_memories(memories: Joined | None, rows: int) -> MemoryRows | None:
    """What each of so many rows reads, the batch's first, laid out once for many steps; None without an encoder."""
    if memories is None:
        return None
    whole, lines = memories.whole, tf.constant(memories.first_lines(rows))
    keys, values = (tf.gather(part, lines, axis=1) for part in (whole.keys, whole.values))
    return MemoryRows(keys, values, tf.gather(whole.mask, lines), None)


def together(arrays: Sequence[Tensor], columns: int, rows: int) -> Tensor:
    """Arrays ["layers M S heads head_dim"] as one, each padded to the columns, all of them to the rows."""
    wide = tf.concat([tf.pad(x, _padding(x, 2, columns)) for x in arrays], 1)
    return tf.pad(wide, _padding(wide, 1, rows))


def memory_arrays(weights: Weights, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values ["layers M S heads head_dim"] that every decoder layer reads of vectors [M, S, D]."""
    family = weights.family
    assert isinstance(family, EncoderDecoder)
    rows, columns, width = hidden.shape
    nowhere = tf.zeros((1, 1), tf.int32)
    ops = TensorFlowOps(Frame(nowhere, nowhere, nowhere[0], nowhere[0]), (), None, (), hidden.dtype)
    flat = tf.reshape(hidden, (rows * columns, width))
    pairs = [family.memory(ops, flat, weights.layer(layer.index, 0), layer) for layer in family.layers]
    shape = (len(pairs), rows, columns, -1, family.layers[0].attention.head_dim)
    keys, values = (tf.reshape(tf.stack(side), shape) for side in zip(*pairs, strict=True))
    return keys, values


def _padding(x: Tensor, axis: int, size: int) -> list[tuple[int, int]]:
    """Zeros behind one axis, up to a size."""
    return [(0, size - length if place == axis else 0) for place, length in enumerate(x.shape)]
