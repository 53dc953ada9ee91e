"""Runs a family's layers one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from fabula.ops.protocol import Array, Ops


def unrolled(
    family: Any,
    ops: Ops,
    x: Array,
    layers: Sequence[SimpleNamespace],
    tap: Callable[[int, Array], None],
    last: int | None = None,
    arrive: Callable[[Array, int], Array] | None = None,
) -> Array:
    """What the last of the first `last` layers gives, None meaning all of them.

    `tap` is shown every layer's output, 1 for the first, and 0 for its input. `arrive` brings a layer its input, where
    layers are on several devices.
    """
    tap(0, x)
    for layer, weights in zip(family.layers[:last], layers[:last], strict=True):
        x = x if arrive is None else arrive(x, layer.index)
        x = family.block(ops, x, weights, layer)
        tap(layer.index + 1, x)
    return x
