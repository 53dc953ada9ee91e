"""Whether weights are still those that keys and values were computed with."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

__all__ = ["Stamp"]


@dataclass(frozen=True, eq=False, slots=True)
class Stamp:
    """A model's weights at one moment."""

    marks: tuple[Hashable, ...]  # of each weight: another where it was replaced or written to
    owners: tuple[Callable[[], Any], ...] = ()  # what the marks are of, weakly: a mark means nothing once it is gone
    kept: tuple[Any, ...] = ()  # what must live for the marks to mean something

    def stands(self, now: Stamp) -> bool:
        """Whether no weight has changed up to now."""
        return self.marks == now.marks and all(owner() is not None for owner in self.owners)
