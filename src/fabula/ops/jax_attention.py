"""Attention over rectangles in JAX, plain: XLA fuses it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fabula.ops.position_buckets import bucket_table
from fabula.ops.specs import AttentionSpec

Array = jax.Array

NOWHERE = np.iinfo(np.int32).max  # the position of a key that is padding

__all__ = ["NOWHERE", "attend", "position_bias", "precision_of", "rotated", "rotation", "seen_by"]


def precision_of(x: Array) -> jax.lax.Precision | None:
    """float32 is computed as float32, on whatever device."""
    return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None


def seen_by(queries: Array, keys: Array, spec: AttentionSpec) -> Array:
    """Bool["R N K"]: whether the query at position p sees the key at position k: p - window < k <= p, or every key."""
    if not spec.causal:
        return jnp.broadcast_to((keys < NOWHERE)[:, None], (*queries.shape, keys.shape[1]))
    seen = keys[:, None, :] <= queries[:, :, None]
    return seen if spec.window is None else seen & (keys[:, None, :] > queries[:, :, None] - spec.window)


def attend(
    q: Array, k: Array, v: Array, spec: AttentionSpec, seen: Array, bias: Array | None = None
) -> tuple[Array, Array]:
    """What q [R, N, H, E] gathers from k and v [R, KV, K, E]: [R, N, H, E]; and the weights [R, H, N, K].

    `seen` Bool["R N K"]; `bias` Float["R|1 H N K"] is added to scores. What no query sees may be anything.
    """
    rows, width, heads, features = q.shape
    shared, precision = heads // spec.kv_heads, precision_of(q)
    grouped = q.reshape(rows, width, spec.kv_heads, shared, features)
    scores = jnp.einsum("rnhge,rhke->rhgnk", grouped, k.astype(q.dtype), precision=precision) * spec.scale
    if spec.softcap is not None:
        scores = spec.softcap * jnp.tanh(scores / spec.softcap)
    if bias is not None:
        scores = scores + bias.reshape(bias.shape[0], spec.kv_heads, shared, *bias.shape[2:])
    scores = scores.astype(jnp.float32)
    hidden = jnp.asarray(np.finfo(np.float32).min, jnp.float32)  # not infinite: a row of padding sees nothing
    weights = jax.nn.softmax(jnp.where(seen[:, None, None], scores, hidden), -1).astype(q.dtype)
    used = jnp.any(seen, 1)[:, None, :, None]  # what nobody sees must not be infinite where its weight is 0
    out = jnp.einsum("rhgnk,rhke->rnhge", weights, jnp.where(used, v, 0).astype(q.dtype), precision=precision)
    return out.reshape(q.shape), weights.reshape(rows, heads, width, -1)


def position_bias(queries: Array, keys: Array, spec: AttentionSpec, weight: Array) -> Array:
    """What distances add to scores, Float["R|1 H N K"]; `weight` [buckets, heads]: the number of each bucket."""
    assert spec.bias is not None
    far = spec.bias.max_distance
    distances = jnp.clip(keys[:, None, :] - queries[:, :, None], -far, far)
    buckets = jnp.asarray(bucket_table(spec.bias, spec.causal), jnp.int32)[distances + far]
    return jnp.moveaxis(weight[buckets], -1, 1)


def rotation(frequencies: tuple[float, ...], factor: float, positions: Array, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Cosines and sines [T, 1, 2 * frequencies] at positions Int["T"].

    The sines of a head's first half are negative: they go with the second half's features.
    """
    angles = positions.astype(jnp.float32)[:, None] * jnp.asarray(np.asarray(frequencies, np.float32))
    cosine, sine = jnp.cos(angles) * factor, jnp.sin(angles) * factor
    cosines, sines = jnp.concatenate([cosine, cosine], -1), jnp.concatenate([-sine, sine], -1)
    return cosines.astype(dtype)[:, None], sines.astype(dtype)[:, None]


def rotated(heads: Array, cosines: Array, sines: Array) -> Array:
    """Heads [T, H, E] turned by their positions' angles; features beyond those of the angles stay."""
    size = cosines.shape[-1]
    own = heads if size == heads.shape[-1] else heads[..., :size]
    out = own * cosines + jnp.roll(own, size // 2, -1) * sines
    return out if size == heads.shape[-1] else jnp.concatenate([out, heads[..., size:]], -1)
