"""The array functions on JAX arrays, as in arrays/numpy.py: with numbers at hand, and with fixed shapes in a trace.

Whole numbers are int32, as JAX has no int64 by default; there is no float64 either, and sums that need it are added in
pairs of floats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fabula.arrays import numpy as host
from fabula.arrays.jax_masses import mass_reach, top_mass  # noqa: F401  # part of this module
from fabula.arrays.jax_selections import is_eager as _is_eager
from fabula.arrays.jax_selections import kth_value, survivors, top_k, without  # noqa: F401  # part of this module

Array = jax.Array


def _type(dtype: str) -> Any:
    """The type of this name; where JAX has no 64 bits, of 32."""
    return jax.dtypes.canonicalize_dtype(np.dtype(dtype) if dtype != "bfloat16" else jnp.bfloat16)


# Creation: `like` gives the framework and the device.


def asarray(x: Any, dtype: str, like: Array | None = None) -> Array:
    """x, a number, list or array, as an array of dtype."""
    host = x if isinstance(x, jax.Array) else np.asarray(x).astype(_type(dtype))  # without a program for each shape
    made = jnp.asarray(host, dtype=_type(dtype))
    return made if like is None or not _is_eager(like, made) else jax.device_put(made, next(iter(like.devices())))


def arange(stop: int, like: Array | None = None) -> Array:
    """Int["N"]: 0, 1, ... stop - 1."""
    return jnp.arange(stop, dtype=jnp.int32)


def zeros(shape: Sequence[int], dtype: str, like: Array | None = None) -> Array:
    """Zeros, or False."""
    return jnp.zeros(tuple(shape), _type(dtype))


def full(shape: Sequence[int], value: float, dtype: str, like: Array | None = None) -> Array:
    """An array of one value."""
    return jnp.full(tuple(shape), value, _type(dtype))


def zeros_like(x: Array) -> Array:
    """Zeros of x's shape and type."""
    return jnp.zeros_like(x)


def ones_like(x: Array) -> Array:
    """Ones of x's shape and type."""
    return jnp.ones_like(x)


# Shape and type.


def astype(x: Array, dtype: str) -> Array:
    """x converted to dtype."""
    return x.astype(_type(dtype))


def as_indices(x: Array) -> Array:
    """Whole numbers in the type that this framework's users index with: int32 here."""
    return x.astype(jnp.int32)


def to_host(x: Array) -> np.ndarray:
    """x as a NumPy array."""
    return np.asarray(x)


def reshape(x: Array, shape: Sequence[int]) -> Array:
    """x in another shape of as many elements."""
    return jnp.reshape(x, tuple(shape))


def matrix_transpose(x: Array) -> Array:
    """["N M"] as ["M N"]."""
    return jnp.swapaxes(x, -1, -2)


def matmul(x: Array, y: Array) -> Array:
    """Products of matrices ["... N K"] and ["... K M"], as exact as the type allows."""
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def broadcast_to(x: Array, shape: Sequence[int]) -> Array:
    """x repeated to a shape."""
    return jnp.broadcast_to(x, tuple(shape))


def concat(arrays: Sequence[Array], axis: int = -1) -> Array:
    """Arrays joined along an axis."""
    return jnp.concatenate(list(arrays), axis=axis)


def repeat(x: Array, times: int, axis: int = 0) -> Array:
    """Each slice of x so many times, its copies side by side."""
    return jnp.repeat(x, times, axis=axis)


# Element by element (operators do the rest).


def where(condition: Array, x: Any, y: Any) -> Array:
    """x where condition holds, else y; either may be a Python number, which takes the other's type."""
    return jnp.where(condition, x, y)


def exp(x: Array) -> Array:
    """e to the x."""
    return jnp.exp(x)


def log(x: Array) -> Array:
    """The natural logarithm; of 0 it is -inf."""
    return jnp.log(x)


def sqrt(x: Array) -> Array:
    """The square root."""
    return jnp.sqrt(x)


def abs(x: Array) -> Array:
    """The absolute value."""
    return jnp.abs(x)


def minimum(x: Array, y: Any) -> Array:
    """The smaller of x and y."""
    return jnp.minimum(x, y)


def maximum(x: Array, y: Any) -> Array:
    """The larger of x and y."""
    return jnp.maximum(x, y)


def power(x: Array, y: Any) -> Array:
    """x to the y."""
    return jnp.power(x, y)


def isfinite(x: Array) -> Array:
    """True where x is neither infinite nor NaN."""
    return jnp.isfinite(x)


def isnan(x: Array) -> Array:
    """True where x is not a number."""
    return jnp.isnan(x)


def left_shift(x: Array, count: int) -> Array:
    """Int32 bits moved towards the high end; what falls off is lost."""
    return jnp.left_shift(x, count)


def right_shift(x: Array, count: int) -> Array:
    """Int32 bits moved towards the low end; copies of the sign come in."""
    return jnp.right_shift(x, count)


# Along an axis.


def sum(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """The sum; of booleans and int32 an int32."""
    return jnp.sum(x, axis=axis, keepdims=keepdims, dtype=x.dtype if _is_float(x) else jnp.int32)


def max(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """The largest value."""
    return jnp.max(x, axis=axis, keepdims=keepdims)


def any(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """True where one is."""
    return jnp.any(x, axis=axis, keepdims=keepdims)


def all(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """True where every one is."""
    return jnp.all(x, axis=axis, keepdims=keepdims)


def argmax(x: Array, axis: int = -1) -> Array:
    """The index of the first maximum, int32; NaN counts as one."""
    if _is_eager(x) or not _is_float(x):
        return jnp.argmax(x, axis=axis).astype(jnp.int32)
    # XLA's own takes several times as long on a CPU, a number after the other. What x is made of is not to be computed
    # once for the maximum and once for those that are compared with it, where it might be rounded otherwise.
    x = jax.lax.optimization_barrier(x)
    is_highest = (x == jnp.max(x, axis=axis, keepdims=True)) | jnp.isnan(x)
    places = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis % x.ndim)
    return jnp.min(jnp.where(is_highest, places, x.shape[axis]), axis=axis)


def cumulative_sum(x: Array, axis: int = -1) -> Array:
    """Running sums; of floats with what rounding loses added beside, then rounded."""
    if not _is_float(x):
        return jnp.cumsum(x, axis=axis, dtype=jnp.int32)
    if _is_eager(x):
        return jnp.asarray(host.cumulative_sum(np.asarray(x), axis))
    wide = x.astype(jnp.float32)
    highs, lows = jax.lax.associative_scan(_add_pairs, (wide, jnp.zeros_like(wide)), axis=axis % x.ndim)
    return (highs + lows).astype(x.dtype)


def _add_pairs(x: tuple[Array, Array], y: tuple[Array, Array]) -> tuple[Array, Array]:
    """The sum of two numbers that are pairs of a float and what it lacks (Knuth 1969, section 4.2.2, theorem B)."""
    high = x[0] + y[0]
    other = high - x[0]
    lost = (x[0] - (high - other)) + (y[0] - other)
    return high, lost + x[1] + y[1]


def _is_float(x: Array) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) over its sum; -inf gives 0, and nothing but -inf gives NaN."""
    raised = jnp.exp(x - jnp.max(x, axis=axis, keepdims=True))
    return raised / jnp.sum(raised, axis=axis, keepdims=True)


def logsumexp(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """The logarithm of the sum of exp(x); of nothing but -inf it is -inf."""
    return jax.nn.logsumexp(x, axis=axis, keepdims=keepdims)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """The logarithm of softmax(x); -inf stays -inf, and nothing but -inf gives NaN."""
    shifted = x - jnp.max(x, axis=axis, keepdims=True)
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=axis, keepdims=True))


# Gather and scatter: rows and columns of a matrix.


def take(x: Array, indices: Array, axis: int = 0) -> Array:
    """The slices of x at indices."""
    return jnp.take(x, indices, axis=axis)


def take_along_axis(x: Array, indices: Array, axis: int = -1) -> Array:
    """x's values at indices, one list of indices a row."""
    return jnp.take_along_axis(x, indices, axis=axis)


def scatter_set(x: Array, columns: Array, values: Any) -> Array:
    """x ["R V"] with values at columns Int["R K"]; where a column occurs twice, either value may stay."""
    return x.at[_rows(x), columns].set(values)


def scatter_where(x: Array, columns: Array, chosen: Array, values: Any) -> Array:
    """x ["R V"] with values, a number or ["R K"], at those columns Int["R K"] where chosen holds; nothing changed is x.

    The chosen columns lie in [0, V); where one occurs twice, either value may stay.
    """
    if _is_eager(chosen) and not np.asarray(chosen).any():
        return x
    return x.at[_rows(x), jnp.where(chosen, columns, x.shape[-1])].set(values, mode="drop")


def surely_none(x: Array) -> bool:
    """Whether nothing in x holds, as far as is known without waiting for a device; in a trace nothing is."""
    return _is_eager(x) and not np.asarray(x).any()


def scatter_add(x: Array, columns: Array, values: Array) -> Array:
    """x ["R V"] with values ["R K"] added at columns Int["R K"], as often as a column occurs."""
    return x.at[_rows(x), columns].add(values)


def _rows(x: Array) -> Array:
    return jnp.arange(x.shape[0])[:, None]


def set_rows(x: Array, rows: Array, values: Array) -> Array:
    """x with values in place of its rows Int["N"], which differ from each other."""
    return x.at[rows].set(values)


# Loops.


def while_loop(condition: Callable[[Any], Array], body: Callable[[Any], Any], state: Any) -> Any:
    """The state, a tuple, after `body` as often as `condition` of it, a Bool[""], holds: one compiled loop."""
    return jax.lax.while_loop(condition, body, state)
