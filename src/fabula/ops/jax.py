"""The operations in JAX, during the trace of one pass over a rectangle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fabula.cache.jax_coding import turned
from fabula.errors import ArgumentError
from fabula.ops.jax_attention import attend, position_bias, precision_of, rotated, rotation, seen_by
from fabula.ops.jax_sources import Place, Source, heads_first
from fabula.ops.protocol import Activation
from fabula.ops.specs import AttentionSpec, LayerSpec, RopeSpec

Array = jax.Array

__all__ = ["Inputs", "JaxOps", "MemoryRows", "OwnMemories", "Shared"]


@dataclass(frozen=True, slots=True)
class MemoryRows:
    """What the layers read of M texts that an encoder has read, of S columns, and which of them each row reads."""

    keys: Any  # Float["layers M S heads head_dim"]
    values: Any
    mask: Any  # Bool["M S"]: which columns are tokens
    lines: Any  # Int["R"]

    def of(self, layer: Any) -> tuple[Array, Array, Array]:
        """A layer's keys and values ["R heads S head_dim"], and which columns are tokens, Bool["R S"]."""
        keys, values = (heads_first(part[layer, self.lines]) for part in (self.keys, self.values))
        return keys, values, self.mask[self.lines]


@dataclass(frozen=True, slots=True)
class OwnMemories:
    """The same laid out once for many steps: each row has its own, and products read it as it lies."""

    keys: Any  # Float["layers R heads S head_dim"]
    values: Any
    mask: Any  # Bool["R S"]

    def of(self, layer: Any) -> tuple[Array, Array, Array]:
        """A layer's keys and values ["R heads S head_dim"], and which columns are tokens, Bool["R S"]."""
        return self.keys[layer], self.values[layer], self.mask


jax.tree_util.register_dataclass(MemoryRows, data_fields=["keys", "values", "mask", "lines"], meta_fields=[])
jax.tree_util.register_dataclass(OwnMemories, data_fields=["keys", "values", "mask"], meta_fields=[])


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a pass over R rows of N positions is given, in a trace. T is R * N."""

    tokens: Array  # Int["R N"]
    positions: Array  # Int["R N"]
    scored: Array | None = None  # Int["S"]: indices into [0, T); None: all, in order
    vectors: Array | None = None  # Float["T D"]: what stands for embedded tokens
    chosen: Array | None = None  # Bool["T"]: where it does; None: everywhere
    embedded: Array | None = None  # Int["R N"]: positions for the position embedding; None: the same
    memory: MemoryRows | OwnMemories | None = None  # what an encoder left for the rows

    @property
    def places(self) -> Array:
        """Int["T"]: what the position embedding sees."""
        return (self.positions if self.embedded is None else self.embedded).reshape(-1)


class Shared:
    """What a pass's layers have in common, computed once before any of them runs."""

    def __init__(self, inputs: Inputs, layers: Sequence[LayerSpec], source: Source, dtype: jnp.dtype) -> None:
        flat = inputs.places
        ropes = dict.fromkeys(layer.rope for layer in layers if layer.rope is not None)
        self.angles = {rope: rotation(rope.inverse_frequencies, rope.attention_factor, flat, dtype) for rope in ropes}
        specs = {layer.attention.window: layer.attention for layer in layers}
        self.keys = {window: source.key_positions(window) for window in specs}
        self.seen = {window: seen_by(inputs.positions, self.keys[window], spec) for window, spec in specs.items()}


class JaxOps:
    """Operations on arrays [T, features]; made anew for each block of layers that is traced."""

    def __init__(self, inputs: Inputs, shared: Shared, source: Source, place: Place | None = None) -> None:
        """`place`: where the keys and values are of the layer whose block comes next."""
        self.inputs = inputs
        self.shared = shared
        self.source = source
        self.place = place
        self.weights: Array | None = None  # Float["R heads N K"]: the last attention's
        self.memory_weights: Array | None = None  # Float["R heads N S"]: the same over an encoder's columns

    def embed(self, weight: Array, scale: float = 1.0) -> Array:
        given, chosen = self.inputs.vectors, self.inputs.chosen
        if given is not None and chosen is None:
            return given.astype(weight.dtype)
        x = jnp.take(weight, self.inputs.tokens.reshape(-1), axis=0, mode="clip")
        x = x if scale == 1.0 else x * jnp.asarray(scale, x.dtype)
        return x if given is None or chosen is None else jnp.where(chosen[:, None], given.astype(x.dtype), x)

    def embed_positions(self, weight: Array) -> Array:
        return jnp.take(weight, self.inputs.places, axis=0, mode="clip")

    def linear(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        out = jax.lax.dot_general(x, weight, (((1,), (1,)), ((), ())), precision=precision_of(x))
        return out if bias is None else out + bias

    def rms_norm(self, x: Array, weight: Array, eps: float, offset: float = 0.0) -> Array:
        runs = x.reshape(-1, weight.shape[0]).astype(jnp.float32)
        wide = runs * jax.lax.rsqrt(jnp.mean(runs * runs, -1, keepdims=True) + eps)
        if offset:
            return (wide * (weight.astype(jnp.float32) + offset)).astype(x.dtype).reshape(x.shape)
        return (wide.astype(x.dtype) * weight).reshape(x.shape)

    def layer_norm(self, x: Array, weight: Array, bias: Array, eps: float) -> Array:
        wide = x.astype(jnp.float32)
        centred = wide - jnp.mean(wide, -1, keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + eps)
        return (normed * weight.astype(jnp.float32) + bias.astype(jnp.float32)).astype(x.dtype)

    def split(self, x: Array, sizes: Sequence[int]) -> tuple[Array, ...]:
        ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
        return tuple(x[:, end - size : end] for size, end in zip(sizes, ends, strict=True))

    def add(self, x: Array, y: Array) -> Array:
        return x + y

    def scale(self, x: Array, factor: float) -> Array:
        return x * factor

    def rope(self, x: Array, rope: RopeSpec) -> Array:
        heads = x.reshape(x.shape[0], -1, rope.head_dim)
        return rotated(heads, *self.shared.angles[rope]).reshape(x.shape)

    def attend(self, layer: LayerSpec, q: Array, k: Array, v: Array, bias: Array | None = None) -> Array:
        spec = layer.attention
        q, k, v = (self._heads(x, spec) for x in (q, k, v))
        assert self.place is not None
        keys, values = self.source.exchange(self.place, k, v)
        coding, places = self.source.coding(self.place), self.shared.keys[spec.window]
        added = None if bias is None else position_bias(self.inputs.positions, places, spec, bias)
        out, self.weights = attend(turned(q, coding), keys, values, spec, self.shared.seen[spec.window], added)
        return turned(out, coding).reshape(-1, spec.heads * spec.head_dim)

    def _heads(self, x: Array, spec: AttentionSpec) -> Array:
        """[T, features] -> [R, N, heads, head_dim]."""
        return x.reshape(*self.inputs.positions.shape, -1, spec.head_dim)

    def attend_memory(self, layer: LayerSpec, q: Array) -> Array:
        memory = self.inputs.memory
        if memory is None or layer.memory is None or self.place is None:
            raise ArgumentError("each row of a model with an encoder must have a memory, got none. Encode its input.")
        keys, values, mask = memory.of(self.place.layer)
        q = self._heads(q, layer.memory)
        seen = jnp.broadcast_to(mask[:, None], (*q.shape[:2], keys.shape[2]))
        out, self.memory_weights = attend(q, keys, values, layer.memory, seen)
        return out.reshape(-1, layer.memory.heads * layer.memory.head_dim)

    def activate(self, x: Array, kind: Activation) -> Array:
        return _ACTIVATIONS[kind](x)

    def gated_mlp(self, x: Array, gate: Array, up: Array, kind: Activation) -> Array:
        return _ACTIVATIONS[kind](self.linear(x, gate)) * self.linear(x, up)

    def scored(self, x: Array) -> Array:
        return x if self.inputs.scored is None else jnp.take(x, self.inputs.scored, axis=0, mode="clip")

    def softcap(self, x: Array, cap: float) -> Array:
        return cap * jnp.tanh(x / cap)


_ACTIVATIONS: Mapping[Activation, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}
