"""Selections on JAX arrays: NumPy's where numbers are at hand; in a trace of fixed shapes, without XLA's slow sort.

Where a sort would only find one value, its 32 bits are found one after the other: floats become integers of the same
order, and each bit takes one pass that counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fabula.arrays import numpy_selections

__all__ = ["first_key", "float_of", "is_eager", "key_of", "kth_value", "survivors", "top_k", "without"]

Array = jax.Array

LOWEST = np.iinfo(np.int32).min


def is_eager(*arrays: Any) -> bool:
    """Whether the arrays have their numbers already; in a trace they have only their shapes."""
    return not any(isinstance(x, jax.core.Tracer) for x in arrays)


def top_k(x: Array, k: int) -> tuple[Array, Array]:
    """The k largest values of each row, falling, and their columns, int32; equal values in column order."""
    if is_eager(x):
        found = numpy_selections.top_k(np.asarray(x), k)
        return jnp.asarray(found[0]), jnp.asarray(found[1])
    columns = jax.lax.top_k(jnp.where(x == 0, 0, x), k)[1]  # to which -0.0 is less than 0.0
    return jnp.take_along_axis(x, columns, -1), columns


def kth_value(x: Array, k: Any) -> Array:
    """["R 1"]: the k-th largest value of each row of x ["R V"]; k in [1, V] is a number or, on the host, Int["R 1"]."""
    if is_eager(x, k):
        return jnp.asarray(numpy_selections.kth_value(np.asarray(x), k if isinstance(k, int) else np.asarray(k)))
    keys, wanted = key_of(x), jnp.asarray(k, jnp.int32)
    found = first_key(lambda key: jnp.sum(keys > key, -1, keepdims=True) < wanted, x.shape[0])
    return float_of(found).astype(x.dtype)


def survivors(scores: Array) -> tuple[Array, Array]:
    """Tokens Int["R K"], rising, and their scores: all that are above -inf; short rows end in tokens at -inf.

    Where the numbers are at hand K is the largest count of a row; in a trace, where shapes are fixed, the vocabulary.
    """
    if is_eager(scores):
        tokens, values = numpy_selections.survivors(np.asarray(scores))
        if tokens.shape[-1] < scores.shape[-1]:
            return jnp.asarray(tokens), jnp.asarray(values)
    return jnp.broadcast_to(jnp.arange(scores.shape[-1], dtype=jnp.int32), scores.shape), scores


def without(x: Array, removed: Array, value: float) -> Array:
    """x ["R V"] with one value where removed Bool["R V"] holds."""
    return jnp.where(removed, jnp.asarray(value, x.dtype), x)


def key_of(x: Array) -> Array:
    """Int32: integers in the order of the floats x; the two zeros share one."""
    floats = x.astype(jnp.float32)
    return _mirrored(jax.lax.bitcast_convert_type(jnp.where(floats == 0, 0.0, floats), jnp.int32))


def float_of(keys: Array) -> Array:
    """Float32: the numbers whose keys these are."""
    return jax.lax.bitcast_convert_type(_mirrored(keys), jnp.float32)


def _mirrored(bits: Array) -> Array:
    """The bits below the sign turned over in negative numbers; twice is nothing."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def first_key(holds: Callable[[Array], Array], rows: int) -> Array:
    """Int32["R 1"]: for each of R rows the least key where `holds`, which stays true once it is; or the last key."""

    def narrow(turn: Array, found: Array) -> Array:
        further = found + jnp.left_shift(jnp.int32(1), 31 - turn)
        return jnp.where(holds(further - 1), found, further)

    return jax.lax.fori_loop(0, 32, narrow, jnp.full((rows, 1), LOWEST, jnp.int32))
