"""The groups of a model's layers, by which a cache stores and a pass reads."""

from __future__ import annotations

from collections.abc import Sequence

from fabula.cache.groups import LayerGroup, layer_groups
from fabula.cache.kinds import DYNAMIC, CacheKind
from fabula.ops.specs import LayerSpec


def groups_of(layers: Sequence[LayerSpec], kind: CacheKind = DYNAMIC) -> tuple[LayerGroup, ...]:
    """Layers with equal heads and the same window together."""
    specs = [layer.attention for layer in layers]
    return layer_groups([(spec.kv_heads, spec.head_dim, spec.window) for spec in specs], kind)
