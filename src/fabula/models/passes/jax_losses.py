"""Losses in JAX: how unlikely a rectangle's labels are."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fabula.models.passes.rectangle import IGNORED

__all__ = ["label_loss", "shifted_loss"]


def shifted_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross-entropy of each label under the logits one column before; labels of -100 do not count."""
    return label_loss(logits[:, :-1], labels[:, 1:])


def label_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross-entropy of each label under its own column's logits; labels of -100 do not count."""
    counted = labels != IGNORED
    chances = jax.nn.log_softmax(logits.astype(jnp.float32), -1)
    chosen = jnp.take_along_axis(chances, jnp.where(counted, labels, 0)[..., None], -1)[..., 0]
    return -jnp.sum(jnp.where(counted, chosen, 0)) / jnp.sum(counted)
