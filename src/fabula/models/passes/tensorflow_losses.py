"""Losses in TensorFlow: how unlikely a rectangle's labels are."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from fabula.models.passes.rectangle import IGNORED

Tensor = Any  # a tf.Tensor


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of each label under its own column's logits; labels of -100 do not count."""
    counted = labels != IGNORED
    chances = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    chosen = tf.gather(chances, tf.where(counted, labels, 0), batch_dims=2)
    return -tf.reduce_mean(tf.boolean_mask(chosen, counted))
