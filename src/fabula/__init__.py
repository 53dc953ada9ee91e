"""Fabula generates text with language models: the API of transformers on native kernels. Names are bound on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # what the table below says, for type checkers and editors
    from fabula.errors import FabulaError

# Public name -> the module that defines it.
_HOMES = {
    "FabulaError": "errors",
}

__all__ = ["FabulaError", "__version__"]


def __getattr__(name: str) -> Any:
    """The public object of that name; its module is imported now, once."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fabula' has no attribute {name!r}")
    value = getattr(import_module(f"fabula.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every public name, bound already or not."""
    return sorted({*globals(), *__all__})
