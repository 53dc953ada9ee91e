"""Runs a family's layers, scanned over their repeating patterns, so that a program is as long as a pattern."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from fabula.cache.groups import place_in
from fabula.cache.tensorflow import Held
from fabula.ops.periods import Period
from fabula.ops.tensorflow import TensorFlowOps

Tensor = Any  # a tf.Tensor


@dataclass(frozen=True, slots=True)
class Scanned:
    """What n layers leave."""

    x: Tensor  # Float["T D"]: the last one's output
    keys: Tensor  # Float["n R N heads features"]: what is to be stored of new ones
    values: Tensor
    states: Tensor | None  # Float["n S D"]: each layer's input at scored positions, if one was asked for
    weights: Tensor | None  # Float["n R heads N K"]: attention, if one was asked for
    memory_weights: Tensor | None  # Float["n R heads N S"]: the same over an encoder's columns


@dataclass(frozen=True, slots=True)
class Shown:
    """What is wanted of layers beside their output."""

    states: Collection[int] = ()  # layers whose inputs are
    weights: Collection[int] = ()  # layers whose attention weights are


def scanned(
    family: Any,
    ops: TensorFlowOps,
    x: Tensor,
    plan: Sequence[Period],
    weights: Any,
    stored: Sequence[Held] | None,
    shown: Shown,
) -> Scanned:
    """The layers of a plan (`ops.periods.shortened`), one pattern after the other.

    `weights.layer(index, turn)`: the fields of the layer that lies `turn` repeats behind layer `index`.
    `stored`: what the cache holds of each group of layers; None: nothing is read.
    """
    pieces: list[list[Tensor]] = []
    for period in plan:
        x, found = _repeated(family, ops, x, period, weights, stored, shown)
        pieces.append(found)
    keys, values, *more = (tf.concat(parts, 0) for parts in zip(*pieces, strict=True))
    states = more.pop(0) if shown.states else None
    attended = more.pop(0) if shown.weights else None
    return Scanned(x, keys, values, states, attended, more.pop(0) if more else None)


def _repeated(
    family: Any,
    ops: TensorFlowOps,
    x: Tensor,
    period: Period,
    weights: Any,
    stored: Sequence[Held] | None,
    shown: Shown,
) -> tuple[Tensor, list[Tensor]]:
    """A pattern's output, and of all its layers what `_pattern` finds of some."""

    def turn(index: Tensor, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        return _pattern(family, ops, x, period, index, weights, stored, shown)

    if period.repeats == 1:
        return turn(tf.constant(0), x)
    kinds = _kinds(family, ops, x, period, stored, shown)
    arrays = [tf.TensorArray(dtype, period.repeats, element_shape=shape) for dtype, shape in kinds]

    def step(index: Tensor, x: Tensor, arrays: list[tf.TensorArray]) -> tuple[Any, ...]:
        x, found = turn(index, x)
        return index + 1, x, [array.write(index, value) for array, value in zip(arrays, found, strict=True)]

    start = (tf.constant(0), x, arrays)
    repeats = period.repeats
    _, x, arrays = tf.while_loop(lambda index, *_: index < repeats, step, start, maximum_iterations=repeats)
    stacks = [array.stack() for array in arrays]
    return x, [tf.reshape(stack, (-1, *stack.shape[2:])) for stack in stacks]


def _pattern(
    family: Any,
    ops: TensorFlowOps,
    x: Tensor,
    period: Period,
    index: Tensor,
    weights: Any,
    stored: Sequence[Held] | None,
    shown: Shown,
) -> tuple[Tensor, list[Tensor]]:
    """The pattern's output in its repeat `index`, and of its layers: new keys, values, inputs, attention weights, and
    those over an encoder's columns.
    """
    found: list[tuple[Tensor, ...]] = []
    for place in range(period.length):
        layer = family.layers[period.start + place]
        number = layer.index + index * period.length
        own = ops.inside(number, None if stored is None else _stored(stored, ops, layer.index, period, index))
        state = (ops.scored(x),) if shown.states else ()
        x = family.block(own, x, weights.layer(layer.index, index), layer)
        assert own.written is not None
        attended = [one for one in (own.weights, own.memory_weights) if shown.weights and one is not None]
        found.append((*own.written, *state, *attended))
    return x, [tf.stack(parts) for parts in zip(*found, strict=True)]


def _stored(
    stored: Sequence[Held], ops: TensorFlowOps, layer: int, period: Period, index: Tensor
) -> tuple[Tensor, Tensor]:
    """What is stored of the layer that lies `index` repeats behind one of the first, ["R B P heads features"]."""
    group, place = place_in(ops.groups, layer)
    if period.repeats > 1:
        stride = place_in(ops.groups, layer + period.length)[1] - place
        place = place + index * stride
    return stored[group].keys[:, :, place], stored[group].values[:, :, place]


def _kinds(
    family: Any, ops: TensorFlowOps, x: Tensor, period: Period, stored: Sequence[Held] | None, shown: Shown
) -> list[tuple[tf.DType, tuple[int, ...]]]:
    """The types and shapes of what `_pattern` finds."""
    spec = family.layers[period.start].attention
    rows, width = ops.frame.positions.shape
    dtype, size = (x.dtype, spec.head_dim) if ops.coding is None else (tf.uint8, ops.coding.nbytes)
    new: tuple[tf.DType, tuple[int, ...]] = (dtype, (period.length, rows, width, spec.kv_heads, size))
    kinds = [new, new]
    if shown.states:
        kinds.append((x.dtype, (period.length, ops.frame.scored.shape[0], x.shape[1])))
    if shown.weights:
        keys = width if stored is None else stored[0].keys.shape[1] * stored[0].keys.shape[3]
        kinds.append((x.dtype, (period.length, rows, spec.heads, width, keys)))
    across, memory = family.layers[period.start].memory, ops.frame.memory
    if shown.weights and across is not None and memory is not None:
        kinds.append((x.dtype, (period.length, rows, across.heads, width, memory.keys.shape[2])))
    return kinds
