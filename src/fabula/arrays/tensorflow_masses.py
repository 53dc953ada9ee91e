"""Masses on TensorFlow tensors: which entries, in order of value, hold how much; eagerly NumPy's way."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from fabula.arrays import numpy_masses
from fabula.arrays.tensorflow_selections import first_key, float_of, is_eager, key_of, kth_value

__all__ = ["mass_reach", "top_mass"]

Array = Any  # a tf.Tensor


def top_mass(scores: Array, tail: Any, keep: Any) -> Array:
    """Bool["R V"]: the likeliest tokens of each row, without the tail that holds little.

    A token is out if it and all that are less likely hold at most `tail` of the mass (of equally likely ones the last
    count as less likely), unless it is among the likeliest `keep`. Both are numbers or ["R 1"]. A negative tail keeps
    everything.
    """
    if is_eager(scores):
        return tf.constant(numpy_masses.top_mass(scores.numpy(), _on_host(tail), _on_host(keep)))
    tail = tf.cast(tail, tf.float32)
    return (tail < 0) | _beyond_tail(scores, tail) | _likeliest(scores, tf.cast(keep, tf.int32))


def mass_reach(x: Array, weights: Array, mass: Any) -> Array:
    """["R 1"]: the least value of each row of x ["R V"] up to which its weights ["R V"] reach `mass`, one or ["R 1"].

    The largest value where they do not.
    """
    if is_eager(x):
        return tf.constant(numpy_masses.mass_reach(x.numpy(), weights.numpy(), _on_host(mass)))
    keys = key_of(x)
    found = first_key(lambda key: _held(keys <= key, weights) >= tf.cast(mass, tf.float32), x)
    lowest, highest = tf.reduce_min(keys, -1, keepdims=True), tf.reduce_max(keys, -1, keepdims=True)
    return tf.cast(float_of(tf.clip_by_value(found, lowest, highest)), x.dtype)


def _beyond_tail(scores: Array, tail: Array) -> Array:
    """Bool["R V"]: tokens that, with all that are less likely, hold more than `tail`.

    All above one value do, none below it; of those that have it, the first ones.
    """
    keys, weights = key_of(scores + 0.0), tf.nn.softmax(tf.cast(scores, tf.float32), -1)
    limit = first_key(lambda key: _held(keys <= key, weights) > tail, scores)
    at_limit = keys == limit
    behind = tf.cumsum(tf.where(at_limit, tf.cast(weights, tf.float64), 0), -1, reverse=True)
    below = tf.reduce_sum(tf.where(keys < limit, tf.cast(weights, tf.float64), 0), -1, keepdims=True)
    return (keys > limit) | (at_limit & (tf.cast(below + behind, tf.float32) > tail))


def _likeliest(scores: Array, keep: Array) -> Array:
    """Bool["R V"]: the first `keep` tokens in falling order."""
    limit = kth_value(scores, keep)
    above, equal = scores > limit, scores == limit
    left = keep - tf.reduce_sum(tf.cast(above, tf.int32), -1, keepdims=True)
    return above | (equal & (tf.cumsum(tf.cast(equal, tf.int32), -1) <= left))


def _held(chosen: Array, weights: Array) -> Array:
    """Float32["R 1"]: the weights of what is chosen, added in float64."""
    return tf.cast(tf.reduce_sum(tf.where(chosen, tf.cast(weights, tf.float64), 0), -1, keepdims=True), tf.float32)


def _on_host(x: Any) -> Any:
    return x.numpy() if isinstance(x, tf.Tensor) else x
