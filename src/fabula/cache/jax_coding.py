"""Heads as codes in JAX, and back; arrays of a cache without codes are as they are given."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fabula.cache.coding import LEAST_STEP, Coding, hadamard

Array = jax.Array

__all__ = ["decoded", "encoded", "turned"]


def turned(x: Array, coding: Coding | None) -> Array:
    """Heads Float["... features"] as their codes have them; turned twice they are as before."""
    return x if coding is None else _turned(x, coding)


def encoded(x: Array, coding: Coding | None, dtype: Any) -> Array:
    """What is stored of heads Float["... features"]: UInt8["... bytes"], or the same in the cache's type."""
    return x.astype(dtype) if coding is None else _encoded(x, coding)


def decoded(stored: Array, coding: Coding | None, dtype: Any) -> Array:
    """Turned heads Float["... features"] of what is stored."""
    return stored.astype(dtype) if coding is None else _decoded(stored, coding).astype(dtype)


@partial(jax.jit, static_argnames="coding")
def _turned(x: Array, coding: Coding) -> Array:
    turn = jnp.asarray(hadamard(coding.features))
    return jnp.matmul(x.astype(jnp.float32), turn, precision=jax.lax.Precision.HIGHEST).astype(x.dtype)


@partial(jax.jit, static_argnames="coding")
def _encoded(x: Array, coding: Coding) -> Array:
    around = [(0, 0)] * (x.ndim - 1)
    whole = jnp.pad(_turned(x.astype(jnp.float32), coding), [*around, (0, coding.padded - coding.features)])
    groups = whole.reshape(*x.shape[:-1], coding.groups, coding.width)
    least, most = groups.min(-1), groups.max(-1)
    scales = jnp.stack([(most - least) / coding.most, least], -1).astype(jnp.float16)
    step, base = scales[..., :1].astype(jnp.float32), scales[..., 1:].astype(jnp.float32)
    codes = jnp.clip(jnp.round((groups - base) / jnp.maximum(step, LEAST_STEP)), 0, coding.most).astype(jnp.uint8)
    flat = codes.reshape(*x.shape[:-1], coding.padded)
    packed = flat if coding.bits == 8 else flat[..., 0::2] | flat[..., 1::2] << 4
    as_bytes = jax.lax.bitcast_convert_type(scales, jnp.uint8).reshape(*x.shape[:-1], 4 * coding.groups)
    return jnp.concatenate([packed, as_bytes], -1)


@partial(jax.jit, static_argnames="coding")
def _decoded(stored: Array, coding: Coding) -> Array:
    shape, end = stored.shape[:-1], coding.code_bytes
    codes, as_bytes = stored[..., :end], stored[..., end:].reshape(*shape, coding.groups, 2, 2)
    if coding.bits == 4:
        codes = jnp.stack([codes & 15, codes >> 4], -1)
    scales = jax.lax.bitcast_convert_type(as_bytes, jnp.float16).astype(jnp.float32)
    groups = codes.reshape(*shape, coding.groups, coding.width).astype(jnp.float32)
    whole = groups * scales[..., :1] + scales[..., 1:]
    return whole.reshape(*shape, coding.padded)[..., : coding.features]
