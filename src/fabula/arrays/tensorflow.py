"""The array functions on TensorFlow tensors, as in arrays/numpy.py: eagerly, and with fixed shapes inside a trace.

Whole numbers are int32, as TensorFlow's users have ids, but for those that need 64 bits. `like` names no device:
TensorFlow places its tensors itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fabula.arrays import numpy as host
from fabula.arrays.tensorflow_masses import mass_reach, top_mass  # noqa: F401  # part of this module
from fabula.arrays.tensorflow_selections import is_eager as _is_eager
from fabula.arrays.tensorflow_selections import kth_value, survivors, top_k, without  # noqa: F401  # part of this module

Array = Any  # a tf.Tensor

INT32 = np.iinfo(np.int32)


def _type(dtype: str) -> tf.DType:
    return tf.as_dtype(dtype)


# Creation: `like` gives the framework.


def asarray(x: Any, dtype: str, like: Array | None = None) -> Array:
    """x, a number, list or array, as a tensor of dtype; int64 only where int32 cannot hold the numbers."""
    if isinstance(x, (tf.Tensor, tf.Variable)):
        return tf.cast(x, _type(dtype))
    values = np.asarray(x, dtype=dtype)
    if dtype == "int64" and (not values.size or INT32.min <= values.min() <= values.max() <= INT32.max):
        values = values.astype(np.int32)
    return tf.constant(values)


def arange(stop: int, like: Array | None = None) -> Array:
    """Int["N"]: 0, 1, ... stop - 1."""
    return tf.range(stop, dtype=tf.int32)


def zeros(shape: Sequence[int], dtype: str, like: Array | None = None) -> Array:
    """Zeros, or False."""
    return tf.zeros(tuple(shape), _type(dtype))


def full(shape: Sequence[int], value: float, dtype: str, like: Array | None = None) -> Array:
    """A tensor of one value."""
    return tf.fill(tuple(shape), tf.constant(value, _type(dtype)))


def zeros_like(x: Array) -> Array:
    """Zeros of x's shape and type."""
    return tf.zeros_like(x)


def ones_like(x: Array) -> Array:
    """Ones of x's shape and type."""
    return tf.ones_like(x)


# Shape and type.


def astype(x: Array, dtype: str) -> Array:
    """x converted to dtype."""
    return tf.cast(x, _type(dtype))


def as_indices(x: Array) -> Array:
    """Whole numbers in the type that this framework's users index with: int32 here."""
    return tf.cast(x, tf.int32)


def to_host(x: Array) -> np.ndarray:
    """x as a NumPy array."""
    return np.asarray(x.numpy() if hasattr(x, "numpy") else x)


def reshape(x: Array, shape: Sequence[int]) -> Array:
    """x in another shape of as many elements."""
    return tf.reshape(x, tuple(shape))


def matrix_transpose(x: Array) -> Array:
    """["N M"] as ["M N"]."""
    return tf.linalg.matrix_transpose(x)


def matmul(x: Array, y: Array) -> Array:
    """Products of matrices ["... N K"] and ["... K M"], as exact as the type allows."""
    return tf.matmul(x, y)


def broadcast_to(x: Array, shape: Sequence[int]) -> Array:
    """x repeated to a shape."""
    return tf.broadcast_to(x, tuple(shape))


def concat(arrays: Sequence[Array], axis: int = -1) -> Array:
    """Tensors joined along an axis."""
    return tf.concat(list(arrays), axis)


def repeat(x: Array, times: int, axis: int = 0) -> Array:
    """Each slice of x so many times, its copies side by side."""
    return tf.repeat(x, times, axis=axis)


# Element by element (operators do the rest).


def where(condition: Array, x: Any, y: Any) -> Array:
    """x where condition holds, else y; either may be a Python number, which takes the other's type."""
    if isinstance(x, tf.Tensor):
        return tf.where(condition, x, _typed(y, x))
    return tf.where(condition, _typed(x, y), y)


def _typed(x: Any, like: Any) -> Any:
    """A number or an array of NumPy in the type of a tensor."""
    return tf.constant(x, like.dtype) if isinstance(like, tf.Tensor) and not isinstance(x, tf.Tensor) else x


def exp(x: Array) -> Array:
    """e to the x."""
    return tf.exp(x)


def log(x: Array) -> Array:
    """The natural logarithm; of 0 it is -inf."""
    return tf.math.log(x)


def sqrt(x: Array) -> Array:
    """The square root."""
    return tf.sqrt(x)


def abs(x: Array) -> Array:
    """The absolute value."""
    return tf.abs(x)


def minimum(x: Array, y: Any) -> Array:
    """The smaller of x and y."""
    return tf.minimum(x, _typed(y, x))


def maximum(x: Array, y: Any) -> Array:
    """The larger of x and y."""
    return tf.maximum(x, _typed(y, x))


def power(x: Array, y: Any) -> Array:
    """x to the y."""
    return tf.pow(x, _typed(y, x))


def isfinite(x: Array) -> Array:
    """True where x is neither infinite nor NaN."""
    return tf.math.is_finite(x)


def isnan(x: Array) -> Array:
    """True where x is not a number."""
    return tf.math.is_nan(x)


def left_shift(x: Array, count: int) -> Array:
    """Int32 bits moved towards the high end; what falls off is lost."""
    return tf.bitwise.left_shift(x, tf.constant(count, x.dtype))


def right_shift(x: Array, count: int) -> Array:
    """Int32 bits moved towards the low end; copies of the sign come in."""
    return tf.bitwise.right_shift(x, tf.constant(count, x.dtype))


# Along an axis.


def sum(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """The sum; of booleans and int32 an int32."""
    return tf.reduce_sum(x if x.dtype.is_floating else tf.cast(x, tf.int32), axis, keepdims)


def max(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """The largest value."""
    return tf.reduce_max(x, axis, keepdims)


def any(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """True where one is."""
    return tf.reduce_any(x, axis, keepdims)


def all(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """True where every one is."""
    return tf.reduce_all(x, axis, keepdims)


def argmax(x: Array, axis: int = -1) -> Array:
    """The index of the first maximum, int32; NaN counts as one."""
    if _is_eager(x):
        return tf.constant(host.argmax(x.numpy(), axis))
    # XLA's own would compute what x is made of many times over, each time it looks at a part of it.
    highest = tf.reduce_max(x, axis, keepdims=True)
    is_highest = x >= highest
    if x.dtype.is_floating:
        is_highest |= tf.math.is_nan(x)
    return _first_true(is_highest, axis)


def _first_true(x: Array, axis: int) -> Array:
    """The index of the first True, int32, or the last index."""
    size = x.shape[axis]
    shape = [1] * x.shape.rank
    shape[axis] = size
    places = tf.reshape(tf.range(size), shape)
    return tf.minimum(tf.reduce_min(tf.where(x, places, size), axis), size - 1)


def cumulative_sum(x: Array, axis: int = -1) -> Array:
    """Running sums; floats are added in float64, then rounded."""
    if x.dtype.is_floating:
        return tf.cast(tf.cumsum(tf.cast(x, tf.float64), axis), x.dtype)
    return tf.cumsum(tf.cast(x, tf.int32), axis)


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) over its sum; -inf gives 0."""
    return tf.nn.softmax(x, axis)


def logsumexp(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """The logarithm of the sum of exp(x); of nothing but -inf it is -inf."""
    return tf.reduce_logsumexp(x, axis, keepdims)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """The logarithm of softmax(x); -inf stays -inf."""
    return tf.nn.log_softmax(x, axis)


# Gather and scatter: rows and columns of a matrix.


def take(x: Array, indices: Array, axis: int = 0) -> Array:
    """The slices of x at indices."""
    return tf.gather(x, indices, axis=axis)


def take_along_axis(x: Array, indices: Array, axis: int = -1) -> Array:
    """x's values at indices, one list of indices a row."""
    return tf.experimental.numpy.take_along_axis(x, indices, axis)


def scatter_set(x: Array, columns: Array, values: Any) -> Array:
    """x ["R V"] with values at columns Int["R K"]; where a column occurs twice, either value may stay."""
    return tf.tensor_scatter_nd_update(x, _places(columns), _values(x, columns, values))


def scatter_where(x: Array, columns: Array, chosen: Array, values: Any) -> Array:
    """x ["R V"] with values, a number or ["R K"], at those columns Int["R K"] where chosen holds; nothing changed is x.

    The chosen columns lie in [0, V); where one occurs twice, either value may stay.
    """
    if surely_none(chosen):
        return x
    spare = tf.where(chosen, columns, x.shape[-1])  # what is not chosen goes to a column that is cut off
    return scatter_set(tf.pad(x, [[0, 0], [0, 1]]), spare, values)[:, : x.shape[-1]]


def surely_none(x: Array) -> bool:
    """Whether nothing in x holds, as far as is known without waiting for a device, or before a trace has run."""
    return _is_eager(x) and not x.numpy().any()


def scatter_add(x: Array, columns: Array, values: Array) -> Array:
    """x ["R V"] with values ["R K"] added at columns Int["R K"], as often as a column occurs."""
    return tf.tensor_scatter_nd_add(x, _places(columns), _values(x, columns, values))


def set_rows(x: Array, rows: Array, values: Array) -> Array:
    """x with values in place of its rows Int["N"], which differ from each other."""
    return tf.tensor_scatter_nd_update(x, rows[:, None], values)


def _places(columns: Array) -> Array:
    """Int["R K 2"]: the row and the column of each of columns Int["R K"]."""
    rows = tf.broadcast_to(tf.range(tf.shape(columns)[0], dtype=columns.dtype)[:, None], tf.shape(columns))
    return tf.stack([rows, columns], -1)


def _values(x: Array, columns: Array, values: Any) -> Array:
    return tf.broadcast_to(tf.cast(values, x.dtype), tf.shape(columns))


# Loops.


def while_loop(condition: Callable[[Any], Array], body: Callable[[Any], Any], state: Any) -> Any:
    """The state, a tuple, after `body` as often as `condition` of it holds; inside a trace one compiled loop."""
    return tf.while_loop(condition, lambda turn: (body(turn),), (state,))[0]
