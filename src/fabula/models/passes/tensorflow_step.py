"""A batch of the engine in TensorFlow: cut into rectangles, computed, written to the cache, and put together again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fabula import arrays
from fabula.cache.groups import LayerGroup
from fabula.cache.tensorflow import TFCache
from fabula.errors import ArgumentError
from fabula.models.passes.memories import Joined, joined
from fabula.models.passes.tensorflow import Computed, Stored
from fabula.models.passes.tensorflow_memory import rows_of, together
from fabula.ops.protocol import Batch, Forward, Taps
from fabula.ops.rectangles import Rectangle, by_row, in_rectangle, rectangles, scored_order
from fabula.ops.tensorflow import Frame

Tensor = Any  # a tf.Tensor
Run = Callable[[Frame, Stored, Taps, Sequence[LayerGroup]], Computed]
Vectors = tuple[np.ndarray, np.ndarray] | None  # Float["T D"] and where they are, Bool["T"]


def run_step(run: Run, width: int, batch: Batch, cache: TFCache, taps: Taps) -> Forward:
    """Computes a batch's positions, stores their keys and values, and scores what it wants scored.

    `run`: of a model's `Programs`; `width`: that of vectors in place of tokens.
    """
    parts = rectangles(batch, cache.nowhere)
    vectors = None if batch.vectors is None else _spread(batch, width)
    memories = joined(batch.memories, together)
    frames = [_frame(part, vectors, memories) for part in parts]
    found = [_computed(run, *pair, cache, taps) for pair in zip(parts, frames, strict=True)]
    order = scored_order(parts)

    def scored(value: Callable[[Computed], Tensor]) -> Tensor:
        """The scored outputs of all rectangles, in the batch's order."""
        pieces = [value(one)[: len(part.outputs)] for part, one in zip(parts, found, strict=True)]
        joined = pieces[0] if len(pieces) == 1 else tf.concat(pieces, 0)
        return joined if order is None else tf.gather(joined, order)

    across = None
    if memories is not None and taps.attentions:
        across = {n: memories.by_row(parts, [one.memory_attentions[n] for one in found]) for n in taps.attentions}
    return Forward(
        scored(lambda one: one.logits),
        scored(lambda one: one.hidden) if taps.final_hidden else None,
        {n: scored(lambda one, n=n: one.states[n]) for n in taps.hidden_states} or None,  # type: ignore[misc]
        {n: by_row(parts, [one.attentions[n] for one in found]) for n in taps.attentions} or None,
        {n: scored(lambda one, n=n: one.early[n]) for n in taps.layer_logits} or None,  # type: ignore[misc]
        across,
    )


def _frame(part: Rectangle, vectors: Vectors, memories: Joined | None) -> Frame:
    """What the rectangle's pass is given."""
    placed = () if vectors is None else tuple(in_rectangle(part, one) for one in vectors)
    plain = map(tf.constant, (part.tokens, part.positions, part.lengths, part.scored, *placed))
    return Frame(*plain)._replace(memory=None if memories is None else rows_of(memories, part))


def _computed(run: Run, part: Rectangle, frame: Frame, cache: TFCache, taps: Taps) -> Computed:
    """A rectangle's outputs; its keys and values are in the cache then."""
    begins = not part.positions[:, 0].any()  # nothing is in the cache yet
    windows = [None if taps.attentions else group.window for group in cache.groups]  # weights are of all keys
    one = run(frame, None if begins else cache.read([*map(part.reach, windows)]), taps, cache.groups)
    shape = (one.keys.shape[0], -1, *one.keys.shape[3:])
    cache.write(part.slots.reshape(-1), tf.reshape(one.keys, shape), tf.reshape(one.values, shape))
    return one


def _spread(batch: Batch, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The vectors that take the place of tokens, Float["T D"], and where they do, Bool["T"]. Raises ArgumentError."""
    given = np.asarray(arrays.of(batch.vectors).to_host(batch.vectors), np.float32)
    if given.shape[1:] != (width,):
        raise ArgumentError(f"`inputs_embeds` must be {width} wide, got {given.shape[1]}.")
    total = int(batch.starts[-1])
    places = np.arange(total) if batch.places is None else batch.places
    vectors, chosen = np.zeros((total, width), np.float32), np.zeros(total, bool)
    vectors[places], chosen[places] = given, True
    return vectors, chosen
