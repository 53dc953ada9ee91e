"""Whose tensors a model takes: those of its own framework. NumPy's arrays and lists of numbers are everybody's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from fabula import arrays
from fabula.errors import ArgumentError

__all__ = ["check_tensors", "takes_tensors_of"]

P = ParamSpec("P")
T = TypeVar("T")
KINDS = {"torch": ("PyTorch", "pt"), "jax": ("JAX", "jax"), "tensorflow": ("TensorFlow", "tf")}


def check_tensors(own: str, given: Mapping[str, Any]) -> None:
    """Raises ArgumentError where an argument, by its name, is a tensor of another framework than `own`.

    "numpy" stands for models of no framework, which take those of each.
    """
    for name, value in given.items() if own in KINDS else ():
        other = _framework(value)
        if other not in (None, "numpy", own):
            (kind, short), got = KINDS[own], KINDS[str(other)][0]
            raise ArgumentError(
                f"`{name}` must be a tensor of {kind}, as the model is, an array of NumPy or lists, got a tensor of "
                f'{got}. Tokenize with return_tensors="{short}".'
            )


def takes_tensors_of(own: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates a method whose arguments `check_tensors` shall look at first."""

    def decorated(call: Callable[P, T]) -> Callable[P, T]:
        names = list(signature(call).parameters)

        @wraps(call)
        def checked(*args: P.args, **named: P.kwargs) -> T:
            check_tensors(own, {**dict(zip(names, args, strict=False)), **named})
            return call(*args, **named)

        return checked

    return decorated


def _framework(value: Any) -> str | None:
    """That of a tensor, of the first of a list of them, or of an encoder's output."""
    value = getattr(value, "last_hidden_state", value)
    return arrays.known(value[0] if isinstance(value, (list, tuple)) and value else value)
