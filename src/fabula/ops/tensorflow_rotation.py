"""Cosines and sines of positions in TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from fabula.ops.specs import RopeSpec

Tensor = Any  # a tf.Tensor


def rotation(rope: RopeSpec, dtype: tf.DType, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, 1, 2 * frequencies] at positions Int["T"].

    The sines of a head's first half are negative: they go with the second half's features.
    """
    frequencies = tf.constant(np.array(rope.inverse_frequencies, np.float32))
    angles = tf.cast(positions, tf.float32)[:, None] * frequencies
    cosine, sine = tf.cos(angles) * rope.attention_factor, tf.sin(angles) * rope.attention_factor
    both = tf.concat([cosine, cosine], -1), tf.concat([-sine, sine], -1)
    return tf.cast(both[0], dtype)[:, None], tf.cast(both[1], dtype)[:, None]


def rotated(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """[T, heads, features], of which as many features are turned as there are cosines."""
    size = cosine.shape[-1]
    own, rest = heads[..., :size], heads[..., size:]
    out = own * cosine + tf.concat([own[..., size // 2 :], own[..., : size // 2]], -1) * sine
    return out if rest.shape[-1] == 0 else tf.concat([out, rest], -1)
