"""Masses on JAX arrays: which entries, in order of value, hold how much; NumPy's way where numbers are at hand.

JAX has no float64 by default. Chances are added as whole numbers instead, in four digits of 12 bits: exactly, and the
same in any order; only what lies below 2^-48 is lost.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fabula.arrays import numpy_masses
from fabula.arrays.jax_selections import first_key, float_of, is_eager, key_of, kth_value

__all__ = ["mass_reach", "top_mass"]

Array = jax.Array

DIGITS = 4  # of 12 bits each: sums of 2^19 of them fit an int32
BITS = 12


def top_mass(scores: Array, tail: Any, keep: Any) -> Array:
    """Bool["R V"]: the likeliest tokens of each row, without the tail that holds little.

    A token is out if it and all that are less likely hold at most `tail` of the mass (of equally likely ones the last
    count as less likely), unless it is among the likeliest `keep`. Both are numbers or ["R 1"]. A negative tail keeps
    everything.
    """
    if is_eager(scores, tail, keep):
        return jnp.asarray(numpy_masses.top_mass(*(np.asarray(part) for part in (scores, tail, keep))))
    limit = jnp.asarray(tail, jnp.float32)
    return (limit < 0) | _beyond_tail(scores, limit) | _likeliest(scores, jnp.asarray(keep, jnp.int32))


def mass_reach(x: Array, weights: Array, mass: Any) -> Array:
    """["R 1"]: the least value of each row of x ["R V"] up to which its weights ["R V"] reach `mass`, one or ["R 1"].

    The largest value where they do not.
    """
    if is_eager(x, weights, mass):
        return jnp.asarray(numpy_masses.mass_reach(*(np.asarray(part) for part in (x, weights, mass))))
    keys, digits, wanted = key_of(x), _digits(weights), jnp.asarray(mass, jnp.float32)
    found = first_key(lambda key: _total(digits, keys <= key) >= wanted, x.shape[0])
    lowest, highest = jnp.min(keys, -1, keepdims=True), jnp.max(keys, -1, keepdims=True)
    return float_of(jnp.clip(found, lowest, highest)).astype(x.dtype)


def _beyond_tail(scores: Array, tail: Array) -> Array:
    """Bool["R V"]: tokens that, with all that are less likely, hold more than `tail`.

    All above one value do, none below it; of those that have it, the first ones.
    """
    keys, chances = key_of(scores), jax.nn.softmax(scores.astype(jnp.float32), -1)
    digits = _digits(chances)
    limit = first_key(lambda key: _total(digits, keys <= key) > tail, scores.shape[0])
    equal = keys == limit
    left = jnp.sum(equal, -1, keepdims=True)
    one = tuple(jnp.max(jnp.where(equal, digit, 0), -1, keepdims=True) for digit in digits)
    below = tuple(jnp.sum(jnp.where(keys < limit, digit, 0), -1, keepdims=True) for digit in digits)
    behind = left - jnp.cumsum(equal, -1) + 1  # how many equal ones from here on
    held = _number(tuple(under + each * behind for under, each in zip(below, one, strict=True)))
    return (keys > limit) | (equal & (held > tail))


def _likeliest(scores: Array, keep: Array) -> Array:
    """Bool["R V"]: the first `keep` tokens in falling order."""
    limit = kth_value(scores, keep)
    above, equal = scores > limit, scores == limit
    left = keep - jnp.sum(above, -1, keepdims=True)
    return above | (equal & (jnp.cumsum(equal, -1) <= left))


def _digits(weights: Array) -> tuple[Array, ...]:
    """Four of Int32["R V"]: weights in [0, 1] as digits of 12 bits behind the point, the highest first."""
    rest, found = weights.astype(jnp.float32), []
    for _ in range(DIGITS):
        rest = rest * (1 << BITS)
        whole = jnp.floor(rest)
        rest = rest - whole
        found.append(whole.astype(jnp.int32))
    return tuple(found)


def _total(digits: tuple[Array, ...], chosen: Array) -> Array:
    """Float32["R 1"]: the weights of what is chosen, rounded once."""
    return _number(tuple(jnp.sum(jnp.where(chosen, digit, 0), -1, keepdims=True) for digit in digits))


def _number(sums: tuple[Array, ...]) -> Array:
    """Float32: sums of digits as a number."""
    carried, digits = jnp.zeros_like(sums[-1]), []
    for each in sums[:0:-1]:
        each = each + carried
        carried = each >> BITS
        digits.append((each & ((1 << BITS) - 1)).astype(jnp.float32))
    last, third, second = digits
    first = (sums[0] + carried).astype(jnp.float32)
    low = third * 2.0 ** (-3 * BITS) + last * 2.0 ** (-4 * BITS)
    return (first * 2.0**-BITS + second * 2.0 ** (-2 * BITS)) + low
