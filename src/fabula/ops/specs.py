"""What a layer is, as data: how it attends and how it turns positions into angles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary position embedding of the first `2 * len(inverse_frequencies)` features of each head.

    Feature i is paired with feature i + len(inverse_frequencies) (the "half" pairing of transformers' checkpoints).
    Su et al. 2021, section 3.2.2; scaled variants change only the numbers below.
    """

    head_dim: int
    inverse_frequencies: tuple[float, ...]  # radians per position, after any scaling
    attention_factor: float = 1.0  # multiplies cosine and sine (YaRN, LongRoPE)


@dataclass(frozen=True, slots=True)
class BiasSpec:
    """Scores gain a learned number for each head and bucket of distances (Raffel et al. 2020, section 2.1).

    Half of a direction's buckets are one distance each; the others widen logarithmically up to `max_distance`, from
    where on all share the last. A causal layer has one direction, another splits the buckets between two.
    """

    buckets: int
    max_distance: int


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """How one layer attends. A query at position p sees keys k with p - window < k <= p, or all if not causal."""

    heads: int  # query heads
    kv_heads: int  # heads of keys and values; divides `heads`
    head_dim: int  # features a head
    scale: float  # multiplies q·k
    window: int | None = None  # how many positions a query sees, its own included; None: all
    softcap: float | None = None  # s -> cap * tanh(s / cap), on scaled scores
    causal: bool = True
    source: Literal["self", "memory"] = "self"  # whose keys: this row's, or an encoder's
    bias: BiasSpec | None = None  # what distances add to scores


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer: its place and what varies from layer to layer."""

    index: int
    attention: AttentionSpec
    rope: RopeSpec | None = None  # None: positions are learned, or absent
    memory: AttentionSpec | None = None  # how it attends to an encoder's memory; None: there is no encoder
