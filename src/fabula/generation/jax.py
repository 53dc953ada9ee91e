"""What generate() has to know of JAX and Flax: keys of random bits, and modules with other parameters."""

from __future__ import annotations

import copy
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
    """A copy of the module with these parameters in place of its own. Raises ArgumentError where they do not fit."""
    if not isinstance(module, nnx.Module):  # one that holds its parameters as `params`, as those of linen do
        fresh = copy.copy(module)
        object.__setattr__(fresh, "_kept", copy.deepcopy(module._kept))
        fresh.params = params
        return fresh
    graph, own = nnx.split(module)
    known = dict(nnx.to_flat_state(own))
    given = {_path(path): value for path, value in _leaves(params)}
    absent = sorted(set(given) - set(map(_path, known)))
    if absent:
        raise ArgumentError(f"`params` must hold the module's own parameters, got {'.'.join(absent[0])!r}.")
    changed = {path: variable.replace(given.get(_path(path), _raw(variable))) for path, variable in known.items()}
    for path, variable in known.items():
        if changed[path].shape != variable.shape:
            raise ArgumentError(
                f"`params` must have the module's shapes, got {tuple(changed[path].shape)} for "
                f"{'.'.join(_path(path))!r}, which has {tuple(variable.shape)}."
            )
    return nnx.merge(graph, nnx.from_flat_state(changed))


def _raw(variable: Any) -> Any:
    """The array of a variable."""
    get = getattr(variable, "get_raw_value", None)
    return variable.value if get is None else get()


def _leaves(params: Any) -> Any:
    """The paths and arrays of a state or of nested mappings."""
    if isinstance(params, nnx.State):
        for path, variable in nnx.to_flat_state(params):
            yield path, _raw(variable)
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
