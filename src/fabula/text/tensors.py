"""Rows of numbers as a framework's tensors, and back: the one place where text meets frameworks, loaded when asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any

from fabula.errors import ArgumentError, MissingDependencyError

# Short name -> (module, how it makes a tensor of integers from lists, the pip command)
_FRAMEWORKS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "np": ("numpy", "pip install numpy"),
        "pt": ("torch", "pip install 'fabula[torch]'"),
        "jax": ("jax.numpy", "pip install 'fabula[jax]'"),
        "tf": ("tensorflow", "pip install 'fabula[tensorflow]'"),
    }
)


def as_tensors(columns: Mapping[str, Any], framework: str) -> dict[str, Any]:
    """Each column as one tensor: int64 in NumPy and PyTorch, int32 in JAX and TensorFlow.

    Raises ArgumentError for an unknown name or ragged rows, MissingDependencyError where the framework is absent.
    """
    module = _load(framework)
    return {name: _tensor(module, name, rows) for name, rows in columns.items()}


def as_lists(ids: Any) -> Any:
    """An int, or (nested) lists of ints, from those or from a tensor of any framework."""
    if isinstance(ids, int | str):
        return ids
    if isinstance(ids, list | tuple):
        return [as_lists(item) for item in ids] if ids and not isinstance(ids[0], int) else list(ids)
    if hasattr(ids, "tolist"):
        return ids.tolist()
    if hasattr(ids, "numpy"):
        return ids.numpy().tolist()
    if hasattr(ids, "__iter__"):
        return [as_lists(item) for item in ids]
    raise ArgumentError(f"`token_ids` must be an id, a list of ids or a tensor of ids, got {type(ids).__name__}.")


def _load(framework: str) -> Any:
    name = str(getattr(framework, "value", framework))
    if name not in _FRAMEWORKS:
        raise ArgumentError(
            f"`return_tensors` must be one of {', '.join(map(repr, _FRAMEWORKS))} or None, got {framework!r}."
        )
    module, command = _FRAMEWORKS[name]
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"`return_tensors={name!r}` needs {module.partition('.')[0]}, which is not installed. Run: {command}"
        ) from error


def _tensor(module: Any, name: str, rows: Any) -> Any:
    if hasattr(rows, "shape"):
        return rows
    if _is_ragged(rows):
        raise ArgumentError(
            f"`{name}` must have rows of one length to become a tensor, got lengths "
            f"{', '.join(str(len(row)) for row in rows[:8])}{', ...' if len(rows) > 8 else ''}. "
            "Use padding=True (and truncation=True to bound the length) to make them equal."
        )
    if module.__name__ == "numpy":
        return module.asarray(rows, dtype="int64")
    if module.__name__ == "torch":
        return module.tensor(rows, dtype=module.int64)
    if module.__name__ == "tensorflow":
        return module.constant(rows, dtype="int32")
    return module.asarray(rows, dtype="int32")


def _is_ragged(rows: Any) -> bool:
    nested = isinstance(rows, Sequence) and len(rows) > 0 and isinstance(rows[0], Sequence)
    return nested and len({len(row) for row in rows}) > 1
