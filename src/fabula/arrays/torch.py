"""The array functions on PyTorch tensors of any device, as in arrays/numpy.py; int64 indices stay inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fabula.arrays import numpy as host
from fabula.arrays.torch_selections import (  # noqa: F401  # part of this module
    kth_value,
    mass_reach,
    survivors,
    top_k,
    top_mass,
    without,
)

Array = torch.Tensor


def _type(dtype: str) -> torch.dtype:
    return getattr(torch, dtype)


def _device(like: Array | None) -> torch.device | None:
    return None if like is None else like.device


# Creation: `like` gives the framework and the device.


def asarray(x: Any, dtype: str, like: Array | None = None) -> Array:
    """x, a number, list or array, as a tensor of dtype; what goes to a GPU goes there without waiting for it."""
    device = _device(like)
    if device is None or device.type != "cuda" or (isinstance(x, torch.Tensor) and x.device.type != "cpu"):
        return torch.as_tensor(x, dtype=_type(dtype), device=device)
    return torch.as_tensor(x, dtype=_type(dtype)).pin_memory().to(device, non_blocking=True)


def arange(stop: int, like: Array | None = None) -> Array:
    """Int["N"]: 0, 1, ... stop - 1."""
    return torch.arange(stop, dtype=torch.int32, device=_device(like))


def zeros(shape: Sequence[int], dtype: str, like: Array | None = None) -> Array:
    """Zeros, or False."""
    return torch.zeros(tuple(shape), dtype=_type(dtype), device=_device(like))


def full(shape: Sequence[int], value: float, dtype: str, like: Array | None = None) -> Array:
    """A tensor of one value."""
    return torch.full(tuple(shape), value, dtype=_type(dtype), device=_device(like))


def zeros_like(x: Array) -> Array:
    """Zeros of x's shape and type."""
    return torch.zeros_like(x)


def ones_like(x: Array) -> Array:
    """Ones of x's shape and type."""
    return torch.ones_like(x)


# Shape and type.


def astype(x: Array, dtype: str) -> Array:
    """x converted to dtype."""
    return x.to(_type(dtype))


def as_indices(x: Array) -> Array:
    """Whole numbers in the type that this framework's users index with: int64 here."""
    return x.to(torch.int64)


def to_host(x: Array) -> np.ndarray:
    """x as a NumPy array."""
    return x.detach().cpu().numpy()


def reshape(x: Array, shape: Sequence[int]) -> Array:
    """x in another shape of as many elements."""
    return x.reshape(tuple(shape))


def matrix_transpose(x: Array) -> Array:
    """["N M"] as ["M N"]."""
    return x.mT


def matmul(x: Array, y: Array) -> Array:
    """Products of matrices ["... N K"] and ["... K M"], as exact as the type allows."""
    return torch.matmul(x, y)


def broadcast_to(x: Array, shape: Sequence[int]) -> Array:
    """x repeated to a shape."""
    return x.expand(tuple(shape))


def concat(arrays: Sequence[Array], axis: int = -1) -> Array:
    """Tensors joined along an axis."""
    return torch.cat(list(arrays), dim=axis)


def repeat(x: Array, times: int, axis: int = 0) -> Array:
    """Each slice of x so many times, its copies side by side."""
    return torch.repeat_interleave(x, times, dim=axis)


# Element by element (operators do the rest).


def where(condition: Array, x: Any, y: Any) -> Array:
    """x where condition holds, else y; either may be a Python number, which takes the other's type."""
    return torch.where(condition, x, y)


def exp(x: Array) -> Array:
    """e to the x."""
    return torch.exp(x)


def log(x: Array) -> Array:
    """The natural logarithm; of 0 it is -inf."""
    return torch.log(x)


def sqrt(x: Array) -> Array:
    """The square root."""
    return torch.sqrt(x)


def abs(x: Array) -> Array:
    """The absolute value."""
    return torch.abs(x)


def minimum(x: Array, y: Any) -> Array:
    """The smaller of x and y."""
    return torch.minimum(x, y) if isinstance(y, torch.Tensor) else torch.clamp(x, max=y)


def maximum(x: Array, y: Any) -> Array:
    """The larger of x and y."""
    return torch.maximum(x, y) if isinstance(y, torch.Tensor) else torch.clamp(x, min=y)


def power(x: Array, y: Any) -> Array:
    """x to the y."""
    return torch.pow(x, y)


def isfinite(x: Array) -> Array:
    """True where x is neither infinite nor NaN."""
    return torch.isfinite(x)


def isnan(x: Array) -> Array:
    """True where x is not a number."""
    return torch.isnan(x)


def left_shift(x: Array, count: int) -> Array:
    """Int32 bits moved towards the high end; what falls off is lost."""
    return torch.bitwise_left_shift(x, count)


def right_shift(x: Array, count: int) -> Array:
    """Int32 bits moved towards the low end; copies of the sign come in."""
    return torch.bitwise_right_shift(x, count)


# Along an axis.


def sum(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """The sum; of booleans and int32 an int32."""
    return torch.sum(x, dim=axis, keepdim=keepdims, dtype=x.dtype if x.is_floating_point() else torch.int32)


def max(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """The largest value."""
    return torch.amax(x, dim=axis, keepdim=keepdims)


def any(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """True where one is."""
    return torch.any(x, dim=axis, keepdim=keepdims)


def all(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """True where every one is."""
    return torch.all(x, dim=axis, keepdim=keepdims)


def argmax(x: Array, axis: int = -1) -> Array:
    """The index of the first maximum, int32."""
    return torch.argmax(x, dim=axis).to(torch.int32)


def cumulative_sum(x: Array, axis: int = -1) -> Array:
    """Running sums; floats are added in float64, then rounded."""
    if x.is_floating_point():
        return torch.cumsum(x, dim=axis, dtype=torch.float64).to(x.dtype)
    return torch.cumsum(x, dim=axis, dtype=torch.int32)


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) over its sum; -inf gives 0."""
    return torch.softmax(x, dim=axis)


def logsumexp(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """The logarithm of the sum of exp(x); of nothing but -inf it is -inf."""
    return torch.logsumexp(x, dim=axis, keepdim=keepdims)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """The logarithm of softmax(x); -inf stays -inf."""
    return torch.log_softmax(x, dim=axis)


# Gather and scatter: rows and columns of a matrix.


def take(x: Array, indices: Array, axis: int = 0) -> Array:
    """The slices of x at indices."""
    return torch.index_select(x, axis, indices)


def take_along_axis(x: Array, indices: Array, axis: int = -1) -> Array:
    """x's values at indices, one list of indices a row."""
    return torch.gather(x, axis, indices.to(torch.int64))


def scatter_set(x: Array, columns: Array, values: Any) -> Array:
    """x ["R V"] with values at columns Int["R K"]; where a column occurs twice, either value may stay."""
    return torch.scatter(x, -1, columns.to(torch.int64), values)


def scatter_where(x: Array, columns: Array, chosen: Array, values: Any) -> Array:
    """x ["R V"] with values, a number or ["R K"], at those columns Int["R K"] where chosen holds; nothing changed is x.

    The chosen columns lie in [0, V); where one occurs twice, either value may stay. A CPU touches only these places.
    """
    if x.device.type != "cpu":
        return _scatter_where_unwaited(x, columns, chosen, values)
    if x.requires_grad or x.dtype == torch.bfloat16:  # what NumPy does not know
        return _scatter_where_unwaited(x, columns, chosen, values)
    here, given = x.numpy(), values.detach().numpy() if isinstance(values, torch.Tensor) else values
    changed = host.scatter_where(here, columns.numpy(), chosen.numpy(), given)
    return x if changed is here else torch.from_numpy(changed)


def _scatter_where_unwaited(x: Array, columns: Array, chosen: Array, values: Any) -> Array:
    """scatter_where with shapes that do not depend on what is chosen: the rest goes to a column that is cut off."""
    spare = torch.where(chosen, columns, x.shape[-1]).long()
    padded = torch.nn.functional.pad(x, (0, 1))
    typed = values.to(x.dtype) if isinstance(values, torch.Tensor) else values
    return torch.scatter(padded, -1, spare, typed)[:, : x.shape[-1]]


def surely_none(x: Array) -> bool:
    """Whether nothing in x holds, as far as is known without waiting for a device."""
    return x.device.type == "cpu" and not x.any().item()


def scatter_add(x: Array, columns: Array, values: Array) -> Array:
    """x ["R V"] with values ["R K"] added at columns Int["R K"], as often as a column occurs."""
    return torch.scatter_add(x, -1, columns.to(torch.int64), values)


def set_rows(x: Array, rows: Array, values: Array) -> Array:
    """x with values in place of its rows Int["N"], which differ from each other."""
    return torch.index_copy(x, 0, rows.to(torch.int64), values)


# Loops.


def while_loop(condition: Callable[[Any], Array], body: Callable[[Any], Any], state: Any) -> Any:
    """The state, a tuple, after `body` as often as `condition` of it holds; a device is waited for at each turn."""
    while condition(state).item():
        state = body(state)
    return state
