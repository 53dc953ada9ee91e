"""CompileConfig: what a call asks of torch.compile, as plain data."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

from fabula.errors import ArgumentError

__all__ = ["CompileConfig"]


@dataclass
class CompileConfig:
    """The arguments of torch.compile for the model's forward."""

    fullgraph: bool = False  # refuse graph breaks
    dynamic: bool | None = None  # shapes may change
    backend: str | Callable[..., Any] = "inductor"
    mode: str | None = "reduce-overhead"
    options: dict[str, Any] | None = None  # for the backend

    def __post_init__(self) -> None:
        """Raise ArgumentError for values that torch.compile would refuse later."""
        if not isinstance(self.backend, str) and not callable(self.backend):
            raise ArgumentError(f"`backend` must be a name or a callable, got {self.backend!r}. Use 'inductor'.")
        if self.options is not None and not isinstance(self.options, dict):
            raise ArgumentError(f"`options` must be a dict, got {self.options!r}. Leave it out for none.")

    def to_dict(self) -> dict[str, Any]:
        """The arguments by name."""
        return deepcopy(asdict(self))
