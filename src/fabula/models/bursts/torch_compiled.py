"""The forward of many steps compiled by torch.compile, over shapes that are few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import FunctionType
from typing import Any

import torch

from fabula.cache.blocks import BLOCK
from fabula.decoding.recipe import Compilation
from fabula.ops.rectangles import bucket

__all__ = ["STEPS", "Compiled", "bucketed", "widened"]

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
    return widened(frame, max(STEPS, frame.slots.shape[1]), lambda window, blocks: bucket(blocks))


def widened(frame: Any, steps: int, width: Callable[[int | None, int], int]) -> Any:
    """The frame with slots for so many steps, and tables of `width` blocks for a window and the blocks that it has."""
    reaches = {}
    for window, (tables, keys) in frame.reaches.items():
        wide = _wider(tables, width(window, tables.shape[1]))
        reaches[window] = wide, keys[:, :1] + torch.arange(wide.shape[1] * BLOCK, device=keys.device)
    others = {device: widened(other, steps, width) for device, other in frame.others.items()}
    return replace(frame, slots=_wider(frame.slots, steps), reaches=reaches, end=None, others=others)


def _wider(x: torch.Tensor, width: int) -> torch.Tensor:
    """Int["R width"]: the last column as often as it takes."""
    return torch.cat([x, x[:, -1:].expand(-1, width - x.shape[1])], 1)
