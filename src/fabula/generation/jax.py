"""What generate() has to know of JAX and Flax: keys of random bits, and modules with other parameters."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import nnx

from fabula.errors import ArgumentError

__all__ = ["key_words", "with_parameters"]


def key_words(key: Any) -> np.ndarray | None:
    """Uint32["2"]: the words of a key, typed or raw; None for what is no key."""
    if not isinstance(key, (jax.Array, np.ndarray)):
        return None
    if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    words = np.asarray(key)
    return words.astype(np.uint32) if words.ndim == 1 and len(words) and words.dtype == np.uint32 else None


def with_parameters(module: Any, params: Any) -> Any:
    """A copy of the module with these parameters, which it shares. Raises ArgumentError where they do not fit."""
    graph, own = nnx.split(module)
    known = dict(nnx.to_flat_state(own))
    given = {_path(path): value for path, value in _leaves(params)}
    for path in given:
        if path not in {_path(one) for one in known}:
            raise ArgumentError(f"`params` must hold the module's own parameters, got {'.'.join(path)!r}.")
    fresh = nnx.merge(graph, own)
    state = nnx.state(fresh)
    flat = dict(nnx.to_flat_state(state))
    for key, variable in flat.items():
        value = given.get(_path(key))
        if value is None:
            continue
        if tuple(value.shape) != tuple(variable.shape):
            raise ArgumentError(
                f"`params` must have the module's shapes, got {tuple(value.shape)} for {'.'.join(_path(key))!r}, "
                f"which has {tuple(variable.shape)}."
            )
        flat[key] = variable.replace(value)
    nnx.update(fresh, nnx.from_flat_state(flat))
    return fresh


def _leaves(params: Any) -> Any:
    """The paths and arrays of a state or of nested mappings."""
    if isinstance(params, nnx.State):
        for path, variable in nnx.to_flat_state(params):
            yield path, getattr(variable, "get_raw_value", lambda variable=variable: variable.value)()
        return
    yield from _nested(params, ())


def _nested(params: Any, before: tuple[Any, ...]) -> Any:
    for name, value in params.items():
        if hasattr(value, "items"):
            yield from _nested(value, (*before, name))
        else:
            yield (*before, name), value


def _path(path: Any) -> tuple[str, ...]:
    return tuple(map(str, path))
