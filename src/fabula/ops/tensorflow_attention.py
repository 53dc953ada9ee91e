"""Attention of a rectangle in TensorFlow: this step's keys put among the stored ones, and the plain sum over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from fabula.ops.position_buckets import bucket_table
from fabula.ops.specs import AttentionSpec

Tensor = Any  # a tf.Tensor


@dataclass(frozen=True, slots=True)
class Keys:
    """Where the keys are of R rows with N new positions within one window: K, one position behind the other."""

    own: Tensor | None  # Bool["R K 1 1"]: keys of this step; None: all are, K = N and nothing is stored
    place: Tensor | None  # Int["R K"]: which of the N an own key is
    unseen: Tensor | None  # Bool["R K 1 1"]: stored keys that no query sees, which hold anything
    seen: Tensor  # Bool["R 1 1 N K"]: which query sees which key
    buckets: Tensor | None  # Int["R N K"]: that of the distance between a query and a key, of a layer with a bias


def keys_of(
    positions: Tensor,
    lengths: Tensor,
    spec: AttentionSpec,
    stored: tuple[Tensor, int] | None,
    valid: Tensor | None = None,
) -> Keys:
    """The keys of queries at positions Int["R N"], of rows that have lengths Int["R"] then.

    `spec`: how a layer with this window attends. `stored`: the position of the first key that can be read, Int["R"],
    and how many can. `valid` Bool["R N"]: which keys are tokens, where none are stored; None: those that somebody sees.
    """
    every = tf.range(positions.shape[1])[None] if stored is None else stored[0][:, None] + tf.range(stored[1])
    seen = _sees(positions, every, spec, valid)
    buckets = None if spec.bias is None else _buckets(positions, every, spec)
    if stored is None:
        return Keys(None, None, None, seen, buckets)
    first = positions[:, :1]
    place = tf.clip_by_value(every - first, 0, positions.shape[1] - 1)
    unseen = _out_of_reach(first, lengths[:, None], every, spec.window)[:, :, None, None]
    return Keys((every >= first)[:, :, None, None], place, unseen, seen, buckets)


def merged(keys: Keys, stored: Tensor | None, new: Tensor) -> Tensor:
    """["R K heads features"]: stored keys or values ["R B P heads features"], and new ones ["R N heads features"]."""
    if keys.own is None or stored is None:
        return new
    flat = tf.reshape(stored, (stored.shape[0], -1, *stored.shape[3:]))
    return tf.where(keys.own, tf.gather(new, keys.place, batch_dims=1), flat)


def within_reach(keys: Keys, values: Tensor) -> Tensor:
    """Values ["R K heads features"], zero where no query sees them: what is stored there may be anything."""
    return values if keys.unseen is None else tf.where(keys.unseen, tf.zeros((), values.dtype), values)


def attend(
    q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, seen: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What q [R, N, H, E] gathers from k and v [R, K, KV, E]: [R, N, H, E], and the weights [R, H, N, K].

    `seen` Bool["R 1 1 N|1 K"]; `bias` Float["R N K H"] is added to scores. Values that no query sees must be finite.
    """
    rows, width, heads, features = q.shape
    shared = heads // spec.kv_heads
    grouped = tf.reshape(q, (rows, width, spec.kv_heads, shared, features))
    scores = tf.einsum("rnkgf,rskf->rkgns", tf.cast(grouped, tf.float32), tf.cast(k, tf.float32)) * spec.scale
    if spec.softcap is not None:
        scores = spec.softcap * tf.tanh(scores / spec.softcap)
    if bias is not None:
        added = tf.reshape(tf.cast(bias, tf.float32), (*bias.shape[:3], spec.kv_heads, shared))
        scores = scores + tf.transpose(added, (0, 3, 4, 1, 2))
    scores = tf.where(seen, scores, tf.float32.min)  # not infinite: a row of padding sees nothing
    weights = tf.cast(tf.nn.softmax(scores, -1), q.dtype)
    out = tf.einsum("rkgns,rskf->rnkgf", weights, tf.cast(v, q.dtype))
    return tf.reshape(out, q.shape), tf.reshape(weights, (rows, heads, width, -1))


def _sees(queries: Tensor, keys: Tensor, spec: AttentionSpec, valid: Tensor | None) -> Tensor:
    """Bool["R 1 1 N K"]: whether the query at position p sees the key at position k: p - window < k <= p, or every key
    that is a token.
    """
    distances = queries[:, :, None] - keys[:, None, :]
    seen = distances >= 0 if spec.causal else tf.ones_like(distances, tf.bool)
    if spec.window is not None:
        seen = seen & (distances < spec.window)
    if valid is not None:
        seen = seen & valid[:, None, :]
    return seen[:, None, None]


def _buckets(queries: Tensor, keys: Tensor, spec: AttentionSpec) -> Tensor:
    """Int["R N K"]: the bucket of each distance."""
    assert spec.bias is not None
    far = spec.bias.max_distance
    distances = tf.clip_by_value(keys[:, None, :] - queries[:, :, None], -far, far)
    return tf.gather(tf.constant(bucket_table(spec.bias, spec.causal), tf.int32), distances + far)


def _out_of_reach(first: Tensor, lengths: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Bool["R K"]: keys behind a row's end, or before what its first new position sees."""
    behind = keys >= lengths
    return behind if window is None else behind | (keys <= first - window)
