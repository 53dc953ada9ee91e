"""The forward of many steps compiled by torch.compile, over shapes that are few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import FunctionType
from typing import Any

import torch

from fabula.cache.blocks import BLOCK
from fabula.decoding.recipe import Compilation

__all__ = ["Compiled", "bucketed"]

STEPS = 64  # that a frame has slots for, as many as the longest burst


class Compiled:
    """What a model has compiled: a function for each way that calls ask for."""

    def __init__(self) -> None:
        self._known: dict[Compilation, Callable[..., Any]] = {}

    def forward(self, frame: Any, asked: Compilation) -> Callable[[torch.Tensor, torch.Tensor, Any], tuple[Any, Any]]:
        """`frame.forward`, compiled; what is compiled once serves all frames of as many rows in the same buckets."""
        if asked not in self._known:
            pairs = asked.arguments
            settings: dict[str, Any] = {name: dict(value) if name == "options" else value for name, value in pairs}
            # a code object of its own: PyTorch counts what it compiles for each, and stops after a few
            own = FunctionType(_forward.__code__.replace(), globals(), "forward")
            self._known[asked] = torch.compile(own, **settings)
        function, few = self._known[asked], bucketed(frame)
        return lambda last, position, state: (function(few, last, position), state)


def _forward(frame: Any, last: torch.Tensor, position: torch.Tensor) -> Any:
    return frame.forward(last, position, None)[0]


def bucketed(frame: Any) -> Any:
    """The frame with slots for STEPS steps and blocks in powers of two; what is new lies behind all that is seen."""
    slots = _wider(frame.slots, max(STEPS, frame.slots.shape[1]))
    reaches = {}
    for window, (tables, keys) in frame.reaches.items():
        blocks = 1 << (tables.shape[1] - 1).bit_length()
        places = torch.arange(blocks * BLOCK, device=keys.device)
        reaches[window] = _wider(tables, blocks), keys[:, :1] + places
    others = {device: bucketed(other) for device, other in frame.others.items()}
    return replace(frame, slots=slots, reaches=reaches, end=None, others=others)


def _wider(x: torch.Tensor, width: int) -> torch.Tensor:
    """Int["R width"]: the last column as often as it takes."""
    return torch.cat([x, x[:, -1:].expand(-1, width - x.shape[1])], 1)
