"""The array functions on NumPy arrays: the plain twin that the other frameworks are compared with.

Functional: nothing changes its arguments. Types are named by strings: "bool", "int32", "float32". Indices are int32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fabula.arrays.numpy_masses import mass_reach, top_mass  # noqa: F401  # part of this module
from fabula.arrays.numpy_selections import kth_value, survivors, top_k, without  # noqa: F401  # part of this module

Array = np.ndarray

WIDE = 2048  # columns from which rows are better done one by one

# Creation: `like` gives the framework and the device.


def asarray(x: Any, dtype: str, like: Any = None) -> Array:
    """x, a number, list or array, as an array of dtype."""
    return np.asarray(x, dtype=dtype)


def arange(stop: int, like: Any = None) -> Array:
    """Int["N"]: 0, 1, ... stop - 1."""
    return np.arange(stop, dtype=np.int32)


def zeros(shape: Sequence[int], dtype: str, like: Any = None) -> Array:
    """Zeros, or False."""
    return np.zeros(shape, dtype=dtype)


def full(shape: Sequence[int], value: float, dtype: str, like: Any = None) -> Array:
    """An array of one value."""
    return np.full(shape, value, dtype=dtype)


def zeros_like(x: Array) -> Array:
    """Zeros of x's shape and type."""
    return np.zeros_like(x)


def ones_like(x: Array) -> Array:
    """Ones of x's shape and type."""
    return np.ones_like(x)


# Shape and type.


def astype(x: Array, dtype: str) -> Array:
    """x converted to dtype."""
    return x.astype(dtype, copy=False)


def as_indices(x: Array) -> Array:
    """Whole numbers in the type that this framework's users index with: int64 here."""
    return x.astype(np.int64, copy=False)


def to_host(x: Array) -> np.ndarray:
    """x as a NumPy array."""
    return np.asarray(x)


def reshape(x: Array, shape: Sequence[int]) -> Array:
    """x in another shape of as many elements."""
    return x.reshape(shape)


def matrix_transpose(x: Array) -> Array:
    """["N M"] as ["M N"]."""
    return np.swapaxes(x, -1, -2)


def matmul(x: Array, y: Array) -> Array:
    """Products of matrices ["... N K"] and ["... K M"], as exact as the type allows."""
    return np.matmul(x, y)


def broadcast_to(x: Array, shape: Sequence[int]) -> Array:
    """x repeated to a shape."""
    return np.broadcast_to(x, shape)


def concat(arrays: Sequence[Array], axis: int = -1) -> Array:
    """Arrays joined along an axis."""
    return np.concatenate(arrays, axis=axis)


def repeat(x: Array, times: int, axis: int = 0) -> Array:
    """Each slice of x so many times, its copies side by side."""
    return np.repeat(x, times, axis=axis)


# Element by element (operators do the rest).


def where(condition: Array, x: Any, y: Any) -> Array:
    """x where condition holds, else y; either may be a Python number, which takes the other's type."""
    return np.where(condition, x, y)


def exp(x: Array) -> Array:
    """e to the x."""
    return np.exp(x)


def log(x: Array) -> Array:
    """The natural logarithm; of 0 it is -inf."""
    with np.errstate(divide="ignore"):
        return np.log(x)


def sqrt(x: Array) -> Array:
    """The square root."""
    return np.sqrt(x)


def abs(x: Array) -> Array:
    """The absolute value."""
    return np.abs(x)


def minimum(x: Array, y: Any) -> Array:
    """The smaller of x and y."""
    return np.minimum(x, y)


def maximum(x: Array, y: Any) -> Array:
    """The larger of x and y."""
    return np.maximum(x, y)


def power(x: Array, y: Any) -> Array:
    """x to the y."""
    return np.power(x, y)


def isfinite(x: Array) -> Array:
    """True where x is neither infinite nor NaN."""
    return np.isfinite(x)


def isnan(x: Array) -> Array:
    """True where x is not a number."""
    return np.isnan(x)


def left_shift(x: Array, count: int) -> Array:
    """Int32 bits moved towards the high end; what falls off is lost."""
    return x << count


def right_shift(x: Array, count: int) -> Array:
    """Int32 bits moved towards the low end; copies of the sign come in."""
    return x >> count


# Along an axis.


def sum(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """The sum; of booleans and int32 an int32."""
    return np.asarray(np.sum(x, axis=axis, keepdims=keepdims, dtype=x.dtype if x.dtype.kind == "f" else np.int32))


def max(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """The largest value."""
    return np.max(x, axis=axis, keepdims=keepdims)


def any(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """True where one is."""
    return np.any(x, axis=axis, keepdims=keepdims)


def all(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """True where every one is."""
    return np.all(x, axis=axis, keepdims=keepdims)


def argmax(x: Array, axis: int = -1) -> Array:
    """The index of the first maximum, int32."""
    return np.argmax(x, axis=axis).astype(np.int32)


def cumulative_sum(x: Array, axis: int = -1) -> Array:
    """Running sums; floats are added in float64, then rounded."""
    wide = np.float64 if x.dtype.kind == "f" else np.int32
    narrow = x.dtype if x.dtype.kind == "f" else np.int32
    return np.cumsum(x, axis=axis, dtype=wide).astype(narrow, copy=False)


def _row_by_row(function: Callable[[Array], Array], x: Array) -> Array:
    """A function of rows, so that what lies between stays in the processor's cache."""
    result = np.empty(x.shape, dtype=x.dtype)
    for row, values in enumerate(x):
        result[row] = function(values)
    return result


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) over its sum; -inf gives 0, and nothing but -inf gives NaN."""
    if x.ndim == 2 and axis == -1 and x.shape[1] >= WIDE:
        return _row_by_row(softmax, x)
    with np.errstate(invalid="ignore"):
        raised = np.exp(x - np.max(x, axis=axis, keepdims=True))
        return raised / np.sum(raised, axis=axis, keepdims=True)


def logsumexp(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """The logarithm of the sum of exp(x); of nothing but -inf it is -inf."""
    highest = np.max(x, axis=axis, keepdims=True)
    highest = np.where(np.isfinite(highest), highest, np.zeros_like(highest))
    total = log(np.sum(np.exp(x - highest), axis=axis, keepdims=True)) + highest
    return total if keepdims else np.squeeze(total, axis=axis)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """The logarithm of softmax(x); -inf stays -inf, and nothing but -inf gives NaN."""
    if x.ndim == 2 and axis == -1 and x.shape[1] >= WIDE:
        return _row_by_row(log_softmax, x)
    with np.errstate(invalid="ignore"):
        shifted = x - np.max(x, axis=axis, keepdims=True)
        return shifted - log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


# Gather and scatter: rows and columns of a matrix.


def take(x: Array, indices: Array, axis: int = 0) -> Array:
    """The slices of x at indices."""
    return np.take(x, indices, axis=axis)


def take_along_axis(x: Array, indices: Array, axis: int = -1) -> Array:
    """x's values at indices, one list of indices a row."""
    return np.take_along_axis(x, indices, axis=axis)


def scatter_set(x: Array, columns: Array, values: Any) -> Array:
    """x ["R V"] with values at columns Int["R K"]; where a column occurs twice, either value may stay."""
    result = x.copy()
    np.put_along_axis(result, columns, values, axis=-1)
    return result


def scatter_where(x: Array, columns: Array, chosen: Array, values: Any) -> Array:
    """x ["R V"] with values, a number or ["R K"], at those columns Int["R K"] where chosen holds; nothing changed is x.

    The chosen columns lie in [0, V); where one occurs twice, either value may stay. A CPU touches only these places.
    """
    if not chosen.any():
        return x
    result = np.empty(x.shape, dtype=x.dtype)
    for row, places in enumerate(chosen):
        result[row] = x[row]  # and then, while it lies in the processor's cache, the places
        found = values[row][places] if isinstance(values, np.ndarray) else values
        result[row][columns[row][places]] = found
    return result


def surely_none(x: Array) -> bool:
    """Whether nothing in x holds, as far as is known without waiting for a device."""
    return not x.any()


def scatter_add(x: Array, columns: Array, values: Array) -> Array:
    """x ["R V"] with values ["R K"] added at columns Int["R K"], as often as a column occurs."""
    result = x.copy()
    np.add.at(result, (np.arange(len(x))[:, None], columns), values)
    return result


def set_rows(x: Array, rows: Array, values: Array) -> Array:
    """x with values in place of its rows Int["N"], which differ from each other."""
    result = x.copy()
    result[rows] = values
    return result


# Loops.


def while_loop(condition: Callable[[Any], Array], body: Callable[[Any], Any], state: Any) -> Any:
    """The state, a tuple, after `body` as often as `condition` of it, a Bool[""], holds.

    The state's arrays, which may lie in tuples and dicts of it, keep their shapes and types, so that JAX and TensorFlow
    compile one body. A framework may look at the condition seldom: once it is False, `body` must be harmless.
    """
    while condition(state):
        state = body(state)
    return state
