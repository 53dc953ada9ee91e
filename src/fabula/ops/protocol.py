"""The operations that a family file is written over, and what a step hands to a model.

An `Ops` object lives for one step: it knows the step's tokens, positions and cache, so that a family's code says only
what is computed. Activations are flat, `[T, features]`: T positions of all rows, end to end; heads lie side by side.
A backend may fuse whatever it likes (the native one records the calls once and compiles them to a program).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from fabula.ops.specs import LayerSpec, RopeSpec
from fabula.taps import NO_TAPS, Taps

__all__ = ["NO_TAPS", "Activation", "Array", "Batch", "Forward", "Ops", "Taps", "Weight"]

Array = Any  # an activation of the backend: [T, features]
Weight = Any  # a weight as the backend prepared it: dense, or packed with its format
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]


class Ops(Protocol):
    """One backend's operations during one step."""

    def embed(self, weight: Weight, scale: float = 1.0) -> Array:
        """The rows of `weight` [V, D] at the step's tokens, times `scale`; the step's vectors as they are, if any."""

    def embed_positions(self, weight: Weight) -> Array:
        """The rows of `weight` [P, D] at the step's positions."""

    def linear(self, x: Array, weight: Weight, bias: Weight | None = None) -> Array:
        """x @ weight.T + bias, for a weight [out, in]."""

    def rms_norm(self, x: Array, weight: Weight, eps: float, offset: float = 0.0) -> Array:
        """Each run of len(weight) features over its root mean square, times (weight + offset): whole rows, or heads."""

    def layer_norm(self, x: Array, weight: Weight, bias: Weight, eps: float) -> Array:
        """(x - mean) / sqrt(variance + eps) * weight + bias, over all features."""

    def split(self, x: Array, sizes: Sequence[int]) -> tuple[Array, ...]:
        """x cut along its features."""

    def add(self, x: Array, y: Array) -> Array:
        """x + y."""

    def scale(self, x: Array, factor: float) -> Array:
        """x * factor."""

    def rope(self, x: Array, rope: RopeSpec) -> Array:
        """Every head of x turned by its position's angles."""

    def attend(self, layer: LayerSpec, q: Array, k: Array, v: Array, bias: Weight | None = None) -> Array:
        """Writes k and v [T, kv_heads * head_dim] to the layer's cache, then attends: [T, heads * head_dim].

        `bias` [buckets, heads] holds what the layer's BiasSpec adds to the scores.
        """

    def attend_memory(self, layer: LayerSpec, q: Array) -> Array:
        """What q [T, heads * head_dim] finds in the keys and values that the row's memory has for this layer."""

    def activate(self, x: Array, kind: Activation) -> Array:
        """The activation function, element by element."""

    def gated_mlp(self, x: Array, gate: Weight, up: Weight, kind: Activation) -> Array:
        """activate(linear(x, gate)) * linear(x, up)."""

    def scored(self, x: Array) -> Array:
        """The rows of x at the step's scored positions: [S, features]."""

    def softcap(self, x: Array, cap: float) -> Array:
        """cap * tanh(x / cap)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step computes: T positions of R rows, laid end to end. All arrays are NumPy int32 on the host.

    Row r computes positions [first[r], first[r] + starts[r + 1] - starts[r]) of itself; those before are in the cache.
    """

    tokens: np.ndarray  # Int["T"]: token ids; ignored where `vectors` is given
    starts: np.ndarray  # Int["R+1"]: row r is [starts[r], starts[r + 1]) of the T
    first: np.ndarray  # Int["R"]: the position of each row's first token of this step
    tables: (
        np.ndarray
    )  # Int["R B"]: block ids; position p lies in tables[r, p // BLOCK], at p % BLOCK; unused entries 0
    scored: np.ndarray  # Int["S"]: indices into [0, T) whose logits are wanted, rising
    vectors: Any = None  # Float["T D"]: inputs in place of token ids; of those at `places` alone, if it is given
    places: np.ndarray | None = None  # Int["N"]: indices into [0, T), rising; then `vectors` are Float["N D"]
    memories: Sequence[Any] = ()  # what each row's encoder made of its input; (): a model without one
    columns: np.ndarray | None = None  # Int["T"]: what an encoder's distances are counted in; None: positions


@dataclass(frozen=True, slots=True)
class Forward:
    """What a step computed, in the backend's arrays."""

    logits: Any  # Float["S V"]: float32; valid until the model's next forward
    hidden: Any = None  # Float["S D"]: after the final norm, if tapped
    hidden_states: Mapping[int, Any] | None = None
    attentions: Mapping[int, Any] | None = None
    layer_logits: Mapping[int, Any] | None = None  # layer -> Float["S V"]: float32
    memory_attentions: Mapping[int, Any] | None = None  # over an encoder's columns, of the layers in `attentions`
