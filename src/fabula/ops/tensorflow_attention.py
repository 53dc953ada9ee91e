"""Attention of a rectangle in TensorFlow: this step's keys put among the stored ones, and the plain sum over them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from fabula.ops.specs import AttentionSpec

Tensor = Any  # a tf.Tensor


@dataclass(frozen=True, slots=True)
class Keys:
    """Where the keys of R rows with N new positions lie; K of them, key k at position k of its row."""

    own: Tensor | None  # Bool["R K 1 1"]: keys of this step; None: all are, K = N and nothing is stored
    place: Tensor | None  # Int["R K"]: which of the N an own key is
    unseen: dict[int | None, Tensor]  # by window, Bool["R K 1 1"]: stored keys that no query sees, which hold anything
    seen: dict[int | None, Tensor]  # by window, Bool["R 1 1 N K"]: which query sees which key


def keys_of(positions: Tensor, lengths: Tensor, stored: int, windows: Iterable[int | None]) -> Keys:
    """The keys of queries at positions Int["R N"], of rows that have lengths Int["R"] then; `stored` can be read."""
    every = tf.range(stored or positions.shape[1])[None]
    seen = {window: _sees(positions, every, window) for window in windows}
    if not stored:
        return Keys(None, None, {}, seen)
    first = positions[:, :1]
    place = tf.clip_by_value(every - first, 0, positions.shape[1] - 1)
    unseen = {window: _out_of_reach(first, lengths[:, None], every, window)[:, :, None, None] for window in windows}
    return Keys((every >= first)[:, :, None, None], place, unseen, seen)


def merged(keys: Keys, stored: Tensor | None, new: Tensor) -> Tensor:
    """["R K heads features"]: stored keys or values ["R B P heads features"], and new ones ["R N heads features"]."""
    if keys.own is None or stored is None:
        return new
    flat = tf.reshape(stored, (stored.shape[0], -1, *stored.shape[3:]))
    return tf.where(keys.own, tf.gather(new, keys.place, batch_dims=1), flat)


def attend(q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, keys: Keys) -> tuple[Tensor, Tensor]:
    """What q [R, N, H, E] gathers from k and v [R, K, KV, E]: [R, N, H, E], and the weights [R, H, N, K]."""
    rows, width, heads, features = q.shape
    shared = heads // spec.kv_heads
    grouped = tf.reshape(q, (rows, width, spec.kv_heads, shared, features))
    scores = tf.einsum("rnkgf,rskf->rkgns", tf.cast(grouped, tf.float32), tf.cast(k, tf.float32)) * spec.scale
    if spec.softcap is not None:
        scores = spec.softcap * tf.tanh(scores / spec.softcap)
    scores = tf.where(keys.seen[spec.window], scores, float("-inf"))
    weights = tf.cast(tf.nn.softmax(scores, -1), q.dtype)
    if keys.unseen:
        v = tf.where(keys.unseen[spec.window], tf.zeros((), v.dtype), v)
    out = tf.einsum("rkgns,rskf->rnkgf", weights, tf.cast(v, q.dtype))
    return tf.reshape(out, q.shape), tf.reshape(weights, (rows, heads, width, -1))


def _sees(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Bool["R 1 1 N K"]: whether the query at position p sees the key at position k: p - window < k <= p."""
    seen = keys[:, None, :] <= queries[:, :, None]
    if window is not None:
        seen = seen & (keys[:, None, :] > queries[:, :, None] - window)
    return seen[:, None, None]


def _out_of_reach(first: Tensor, lengths: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Bool["R K"]: keys behind a row's end, or before what its first new position sees."""
    behind = keys >= lengths
    return behind if window is None else behind | (keys <= first - window)
