"""The operations in TensorFlow, while a rectangle's program is traced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import tensorflow as tf

from fabula.cache.coding import Coding
from fabula.cache.groups import LayerGroup
from fabula.cache.tensorflow import Held
from fabula.cache.tensorflow_coding import decoded, encoded, turned
from fabula.errors import ArgumentError
from fabula.ops.protocol import Activation
from fabula.ops.specs import LayerSpec, RopeSpec
from fabula.ops.tensorflow_attention import Keys, attend, keys_of, merged, within_reach
from fabula.ops.tensorflow_rotation import rotated, rotation

Tensor = Any  # a tf.Tensor

FEW = 4  # rows that XLA on a CPU multiplies faster one by one: it reads a matrix for each, but as it lies


class MemoryRows(NamedTuple):
    """What the layers read of M texts that an encoder has read, of S columns, and which of them each row reads."""

    keys: Tensor  # Float["layers M S heads head_dim"]
    values: Tensor
    mask: Tensor  # Bool["M S"]: which columns are tokens
    lines: Tensor | None  # Int["R"]; None: M is R, and each row reads its own

    def of(self, layer: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A layer's keys and values ["R S heads head_dim"], and which columns are tokens, Bool["R S"]."""
        parts = (self.keys[layer], self.values[layer], self.mask)
        return parts if self.lines is None else tuple(tf.gather(part, self.lines) for part in parts)


class Frame(NamedTuple):
    """R rows of N positions, as traced tensors; activations are [R * N, features]."""

    tokens: Tensor  # Int["R N"]
    positions: Tensor  # Int["R N"]
    lengths: Tensor  # Int["R"]: positions that each row has after this step
    scored: Tensor  # Int["S"]: indices into [0, R * N)
    vectors: Tensor | None = None  # Float["R N D"]: what takes the place of embedded tokens
    given: Tensor | None = None  # Bool["R N"]: where it does
    valid: Tensor | None = None  # Bool["R N"]: which positions are tokens, where nothing is stored; None: all seen
    memory: MemoryRows | None = None  # what an encoder left for the rows


class TensorFlowOps:
    """Operations on tensors [R * N, features]. Roundings in 16-bit types fall where PyTorch has them."""

    def __init__(
        self,
        frame: Frame,
        layers: Sequence[LayerSpec],
        stored: Sequence[Held] | None,
        groups: Sequence[LayerGroup],
        dtype: tf.DType,
    ) -> None:
        """`stored`: what each group of layers can read; None: all there are come from this step."""
        self.frame = frame
        self.groups = groups
        self.coding: Coding | None = groups[0].coding if groups else None
        reads = {
            group.window: (held.starts, held.keys.shape[1] * held.keys.shape[3])
            for group, held in zip(groups, stored or (), strict=False)
        }
        specs = {layer.attention.window: layer.attention for layer in layers}
        given = (frame.positions, frame.lengths)
        self.keys: dict[int | None, Keys] = {
            window: keys_of(*given, spec, reads.get(window), frame.valid) for window, spec in specs.items()
        }
        flat = tf.reshape(frame.positions, (-1,))
        ropes = {layer.rope: None for layer in layers if layer.rope is not None}
        self.rotations = {rope: rotation(rope, dtype, flat) for rope in ropes}
        self.stored: tuple[Tensor, Tensor] | None = None  # one layer's keys and values, Float["R B P heads features"]
        self.written: tuple[Tensor, Tensor] | None = None  # what is to be stored of new ones, "R N heads features"
        self.weights: Tensor | None = None  # what it attended to, Float["R heads N K"]
        self.layer: Tensor | None = None  # its number
        self.memory_weights: Tensor | None = None  # what it attended to of an encoder's columns, Float["R heads N S"]

    def inside(self, layer: Tensor, stored: tuple[Tensor, Tensor] | None) -> TensorFlowOps:
        """The operations of the layer of a number, whose stored keys and values these are."""
        own = copy(self)
        own.layer, own.stored = layer, stored
        return own

    def embed(self, weight: Tensor, scale: float = 1.0) -> Tensor:
        x = tf.gather(weight, tf.reshape(self.frame.tokens, (-1,)))
        x = x if scale == 1.0 else x * tf.constant(scale, x.dtype)
        if self.frame.vectors is None:
            return x
        vectors = tf.reshape(tf.cast(self.frame.vectors, x.dtype), x.shape)
        return tf.where(tf.reshape(self.frame.given, (-1, 1)), vectors, x)

    def embed_positions(self, weight: Tensor) -> Tensor:
        return tf.gather(weight, tf.reshape(self.frame.positions, (-1,)))

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if x.shape[0] <= FEW:
            out = tf.stack([tf.linalg.matvec(weight, row) for row in tf.unstack(x)])
        else:
            out = tf.matmul(x, weight, transpose_b=True)
        return out if bias is None else out + bias

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, offset: float = 0.0) -> Tensor:
        runs = tf.cast(tf.reshape(x, (-1, weight.shape[0])), tf.float32)
        wide = runs * tf.math.rsqrt(tf.reduce_mean(runs * runs, -1, keepdims=True) + eps)
        if offset or x.dtype == tf.float32:
            normed = tf.cast(wide * (tf.cast(weight, tf.float32) + offset), x.dtype)
        else:
            normed = tf.cast(wide, x.dtype) * weight
        return tf.reshape(normed, x.shape)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        wide = tf.cast(x, tf.float32)
        centred = wide - tf.reduce_mean(wide, -1, keepdims=True)
        wide = centred * tf.math.rsqrt(tf.reduce_mean(centred * centred, -1, keepdims=True) + eps)
        return tf.cast(wide * tf.cast(weight, tf.float32) + tf.cast(bias, tf.float32), x.dtype)

    def split(self, x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
        return tuple(tf.split(x, list(sizes), -1))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def scale(self, x: Tensor, factor: float) -> Tensor:
        return x * tf.constant(factor, x.dtype)

    def rope(self, x: Tensor, rope: RopeSpec) -> Tensor:
        heads = tf.reshape(x, (x.shape[0], -1, rope.head_dim))
        return tf.reshape(rotated(heads, *self.rotations[rope]), x.shape)

    def attend(self, layer: LayerSpec, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        spec = layer.attention
        shape = (*self.frame.positions.shape, -1, spec.head_dim)
        queries, *new = (tf.reshape(x, shape) for x in (q, k, v))
        own, coding = self.keys[spec.window], self.coding
        written = [encoded(x, coding, x.dtype) for x in new]
        self.written = (written[0], written[1])
        if self.stored is not None:
            written = [merged(own, *pair) for pair in zip(self.stored, written, strict=True)]
        keys, values = (decoded(x, coding, q.dtype) for x in written)
        added = None if bias is None or own.buckets is None else tf.gather(bias, own.buckets)
        values = within_reach(own, values)
        out, self.weights = attend(turned(queries, coding), keys, values, spec, own.seen, added)
        return tf.reshape(turned(out, coding), q.shape)

    def attend_memory(self, layer: LayerSpec, q: Tensor) -> Tensor:
        memory, spec = self.frame.memory, layer.memory
        if memory is None or spec is None:
            raise ArgumentError("each row of a model with an encoder must have a memory, got none. Encode its input.")
        queries = tf.reshape(q, (*self.frame.positions.shape, -1, spec.head_dim))
        keys, values, mask = memory.of(self.layer)
        out, self.memory_weights = attend(queries, keys, values, spec, mask[:, None, None, None])
        return tf.reshape(out, q.shape)

    def activate(self, x: Tensor, kind: Activation) -> Tensor:
        return _ACTIVATIONS[kind](x)

    def gated_mlp(self, x: Tensor, gate: Tensor, up: Tensor, kind: Activation) -> Tensor:
        return _ACTIVATIONS[kind](self.linear(x, gate)) * self.linear(x, up)

    def scored(self, x: Tensor) -> Tensor:
        return tf.gather(x, self.frame.scored)

    def softcap(self, x: Tensor, cap: float) -> Tensor:
        return cap * tf.tanh(x / cap)


_ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "silu": tf.nn.silu,
    "gelu": lambda x: tf.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: tf.nn.gelu(x, approximate=True),
    "relu": tf.nn.relu,
}
