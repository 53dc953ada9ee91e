"""All that the engine knows of a model, and of where its keys and values lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps


class Storage(Protocol):
    """Where keys and values lie, in blocks."""

    blocks: int
    nbytes: int

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None: ...

    def grow(self, blocks: int) -> None: ...


class Model(Protocol):
    """All that the engine knows of a model; it may also have `layers`, and `weights_stamp()` where weights may change.

    And what makes some steps faster: a `sampler` (decoding/plain_rows.py), a `burst` (engine/burst.py).
    """

    def new_cache(self, blocks: int) -> Storage: ...

    def step(self, batch: Batch, cache: Any, taps: Taps = NO_TAPS) -> Forward: ...


def window_of(model: Any) -> int | None:
    """How far back the model sees: the widest window of its layers; None where one has none."""
    layers = getattr(getattr(model, "family", model), "layers", ())
    specs = [getattr(layer, "attention", None) for layer in layers]
    windows = [getattr(spec, "window", None) for spec in specs]
    known = [one for one in windows if isinstance(one, int)]
    return max(known) if known and len(known) == len(windows) else None
