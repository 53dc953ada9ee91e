"""Layers whose keys and values lie in one array, and which blocks of a row they can see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fabula.cache.blocks import BLOCK
from fabula.cache.coding import Coding
from fabula.cache.kinds import DYNAMIC, CacheKind

__all__ = ["LayerGroup", "layer_groups", "place_in", "reach"]


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Layers with equal heads that see equally far back."""

    layers: tuple[int, ...]  # which of the model's, in order
    kv_heads: int
    head_dim: int
    window: int | None  # how many positions a query sees, its own included; None: all
    coding: Coding | None  # how a head's features are stored; None: as they are

    @property
    def width(self) -> int:
        """What a head at one position is stored as: so many features, or bytes where they are codes."""
        return self.head_dim if self.coding is None else self.coding.nbytes


def layer_groups(layers: Sequence[tuple[int, int, int | None]], kind: CacheKind = DYNAMIC) -> tuple[LayerGroup, ...]:
    """The groups of layers, of each of which its key heads, the features of one and its window are given."""
    found = []
    for shape in dict.fromkeys(layers):
        heads, features, window = shape
        own = tuple(index for index, each in enumerate(layers) if each == shape)
        coding = Coding(features, kind.bits, kind.group) if kind.name == "quantized" else None
        found.append(LayerGroup(own, heads, features, window, coding))
    return tuple(found)


def place_in(groups: Sequence[LayerGroup], layer: int) -> tuple[int, int]:
    """The group of a layer, and its place there."""
    group = next(index for index, each in enumerate(groups) if layer in each.layers)
    return group, groups[group].layers.index(layer)


def reach(tables: np.ndarray, first: np.ndarray, count: int, window: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The blocks that `count` positions of each row from its first Int["R"] on see, of its table Int["R B"].

    They are Int["R C"], with a C that depends on shapes and the window alone, and the position at which the first of
    them begins is Int["R"].
    """
    rows, blocks = tables.shape
    most = blocks if window is None else min(blocks, (window + count + BLOCK - 3) // BLOCK + 1)
    if most == blocks:
        return tables, np.zeros(rows, np.int32)
    assert window is not None
    begin = np.clip((first - window + 1) // BLOCK, 0, blocks - most).astype(np.int32)
    return np.take_along_axis(tables, begin[:, None] + np.arange(most), 1), begin * BLOCK
