"""Where a native model computes, as code that was written for torch.device asks for it."""

from __future__ import annotations

from typing import Any


class Place(str):
    """A device's name that also has a `type` and an `index`, and equals the torch.device of that name."""

    __slots__ = ()

    @property
    def type(self) -> str:
        """The kind of device."""
        return self.partition(":")[0]

    @property
    def index(self) -> None:  # type: ignore[override]
        """None: there is one."""
        return None

    def __eq__(self, other: Any) -> bool:
        return str(self) == str(other)

    def __ne__(self, other: Any) -> bool:
        return str(self) != str(other)

    __hash__ = str.__hash__
