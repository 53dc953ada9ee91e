"""Heads as codes in TensorFlow, and back; tensors of a cache without codes are as they are given."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from fabula.cache.coding import LEAST_STEP, Coding, hadamard

Tensor = Any  # a tf.Tensor

__all__ = ["decoded", "encoded", "turned"]


def turned(x: Tensor, coding: Coding | None) -> Tensor:
    """Heads Float["... features"] as their codes have them; turned twice they are as before."""
    if coding is None:
        return x
    flat = tf.reshape(tf.cast(x, tf.float32), (-1, coding.features))
    return tf.cast(tf.reshape(tf.matmul(flat, tf.constant(hadamard(coding.features))), x.shape), x.dtype)


def encoded(x: Tensor, coding: Coding | None, dtype: tf.DType) -> Tensor:
    """What is stored of heads Float["... features"]: UInt8["... bytes"], or the same in the cache's type."""
    if coding is None:
        return tf.cast(x, dtype)
    shape, around = x.shape[:-1], [(0, 0)] * (len(x.shape) - 1)
    whole = tf.pad(turned(tf.cast(x, tf.float32), coding), [*around, (0, coding.padded - coding.features)])
    groups = tf.reshape(whole, (*shape, coding.groups, coding.width))
    least, most = tf.reduce_min(groups, -1), tf.reduce_max(groups, -1)
    scales = tf.cast(tf.stack([(most - least) / coding.most, least], -1), tf.float16)
    step, base = tf.cast(scales[..., :1], tf.float32), tf.cast(scales[..., 1:], tf.float32)
    codes = tf.clip_by_value(tf.round((groups - base) / tf.maximum(step, LEAST_STEP)), 0, coding.most)
    flat = tf.reshape(tf.cast(codes, tf.uint8), (*shape, coding.padded))
    packed = flat if coding.bits == 8 else flat[..., 0::2] + flat[..., 1::2] * 16
    as_bytes = tf.reshape(tf.bitcast(scales, tf.uint8), (*shape, 4 * coding.groups))
    return tf.concat([packed, as_bytes], -1)


def decoded(stored: Tensor, coding: Coding | None, dtype: tf.DType) -> Tensor:
    """Turned heads Float["... features"] of what is stored."""
    if coding is None:
        return tf.cast(stored, dtype)
    shape, end = stored.shape[:-1], coding.code_bytes
    codes, as_bytes = stored[..., :end], tf.reshape(stored[..., end:], (*shape, coding.groups, 2, 2))
    if coding.bits == 4:
        codes = tf.stack([codes % 16, codes // 16], -1)
    scales = tf.cast(tf.bitcast(as_bytes, tf.float16), tf.float32)
    groups = tf.cast(tf.reshape(codes, (*shape, coding.groups, coding.width)), tf.float32)
    whole = tf.reshape(groups * scales[..., :1] + scales[..., 1:], (*shape, coding.padded))
    return tf.cast(whole[..., : coding.features], dtype)
