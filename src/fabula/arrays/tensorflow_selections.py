"""Selections on TensorFlow tensors: eagerly NumPy's; inside a trace with fixed shapes, and without XLA's slow sort.

Where a sort would only find one value, its 32 bits are found one after the other: floats become integers of the same
order, and each bit takes one pass that counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from fabula.arrays import numpy_selections

__all__ = ["first_key", "float_of", "is_eager", "key_of", "kth_value", "survivors", "top_k", "without"]

Array = Any  # a tf.Tensor

LOWEST = np.iinfo(np.int32).min


def is_eager(x: Any) -> bool:
    """Whether x has its numbers already; inside a trace it has only their shape."""
    return hasattr(x, "numpy")


def top_k(x: Array, k: int) -> tuple[Array, Array]:
    """The k largest values of each row, falling, and their columns, int32; equal values in column order."""
    if is_eager(x):
        values, columns = numpy_selections.top_k(x.numpy(), k)
        return tf.constant(values), tf.constant(columns)
    found = tf.math.top_k(x, k)
    return found.values, found.indices


def kth_value(x: Array, k: Any) -> Array:
    """["R 1"]: the k-th largest value of each row of x ["R V"]; k in [1, V] is a number or, on the host, Int["R 1"]."""
    if is_eager(x):
        return tf.constant(numpy_selections.kth_value(x.numpy(), k))
    keys, wanted = key_of(x), tf.cast(k, tf.int32)

    def is_beyond(key: Array) -> Array:
        above = tf.reduce_sum(tf.cast(keys > key, tf.int32), -1, keepdims=True)
        return above < wanted

    return tf.cast(float_of(first_key(is_beyond, x)), x.dtype)


def survivors(scores: Array) -> tuple[Array, Array]:
    """Tokens Int["R K"], rising, and their scores: all that are above -inf; short rows end in tokens at -inf.

    Eagerly K is the largest count of a row; inside a trace, where shapes are fixed, the vocabulary.
    """
    if is_eager(scores):
        tokens, values = numpy_selections.survivors(scores.numpy())
        if tokens.shape[-1] < scores.shape[-1]:
            return tf.constant(tokens), tf.constant(values)
    return tf.broadcast_to(tf.range(scores.shape[-1], dtype=tf.int32), tf.shape(scores)), scores


def without(x: Array, removed: Array, value: float) -> Array:
    """x ["R V"] with one value where removed Bool["R V"] holds."""
    return tf.where(removed, tf.constant(value, x.dtype), x)


def key_of(x: Array) -> Array:
    """Int32: integers in the order of the floats x; the two zeros differ."""
    bits = tf.bitcast(tf.cast(x, tf.float32), tf.int32)
    return _mirrored(bits)


def float_of(keys: Array) -> Array:
    """Float32: the numbers whose keys these are."""
    return tf.bitcast(_mirrored(keys), tf.float32)


def _mirrored(bits: Array) -> Array:
    """The bits below the sign turned over in negative numbers; twice is nothing."""
    return bits ^ (tf.bitwise.right_shift(bits, 31) & 0x7FFFFFFF)


def first_key(holds: Callable[[Array], Array], x: Array) -> Array:
    """Int32["R 1"]: for each row of x ["R V"] the least key where `holds`, which stays true once it is; or the last."""

    def narrow(bit: Array, found: Array) -> tuple[Array, Array]:
        further = found + tf.bitwise.left_shift(tf.constant(1, tf.int32), bit)
        return bit - 1, tf.where(holds(further - 1), found, further)

    lowest = tf.fill((tf.shape(x)[0], 1), tf.constant(LOWEST, tf.int32))
    start = (tf.constant(31, tf.int32), lowest)
    return tf.while_loop(lambda bit, found: bit >= 0, narrow, start, maximum_iterations=32)[1]
