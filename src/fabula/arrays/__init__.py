"""The same array functions in every framework: `of(x)` gives the module that works on arrays like x."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fabula.errors import ArgumentError, NotSupportedError

__all__ = ["framework", "known", "listed", "of", "on_host", "part"]

FRAMEWORKS = {
    "numpy": "numpy",
    "torch": "torch",
    "jax": "jax",
    "jaxlib": "jax",
    "flax": "jax",
    "tensorflow": "tensorflow",
    "keras": "tensorflow",
}


def framework(x: Any) -> str:
    """The name of x's framework: "numpy", "torch", "jax" or "tensorflow". Raises ArgumentError where it has none."""
    name = known(x)
    if name is None:
        raise ArgumentError(
            f"`x` must be an array of NumPy, PyTorch, JAX or TensorFlow, got {type(x).__name__}. Convert it first."
        )
    return name


def known(x: Any) -> str | None:
    """The same; None where it has none."""
    for kind in type(x).__mro__:
        name = FRAMEWORKS.get(kind.__module__.partition(".")[0])
        if name is not None:
            return name
    return None


def of(x: Any) -> Any:
    """The module of array functions for x's framework."""
    return part(x, __name__)


def on_host(x: Any) -> bool:
    """Whether NumPy can read x where it lies."""
    name = framework(x)
    if name == "tensorflow":  # inside a trace there are no numbers yet
        return hasattr(x, "numpy") and "CPU" in x.device
    return name == "numpy" or (name == "torch" and x.device.type == "cpu")


def listed(x: Any) -> Any:
    """An array's numbers in lists, or the number that it is; what is no array is itself."""
    if hasattr(x, "tolist"):
        return x.tolist()
    return x.numpy().tolist() if hasattr(x, "shape") and hasattr(x, "numpy") else x  # one of TensorFlow


def part(x: Any, package: str) -> Any:
    """The module of `package` that bears the name of x's framework, such as fabula.cache.torch."""
    return _module(package, framework(x))


@cache
def _module(package: str, name: str) -> Any:
    if find_spec(f"{package}.{name}") is None:
        raise NotSupportedError(
            f"`{package}` must have a part for the arrays it is given, got {name}. Use NumPy or PyTorch arrays."
        )
    return import_module(f"{package}.{name}")
