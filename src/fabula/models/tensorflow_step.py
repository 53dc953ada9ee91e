"""A batch of the engine in TensorFlow: cut into rectangles, computed, written to the cache, and put together again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from fabula import arrays
from fabula.cache.tensorflow import TFCache
from fabula.errors import ArgumentError
from fabula.models.tensorflow_pass import Computed, Stored, Vectors
from fabula.ops.protocol import Batch, Forward, Taps
from fabula.ops.rectangles import Rectangle, by_row, in_rectangle, rectangles, scored_order

Tensor = Any  # a tf.Tensor
Run = Callable[[Rectangle, Stored, Taps, Vectors], Computed]


def run_step(run: Run, width: int, batch: Batch, cache: TFCache, taps: Taps) -> Forward:
    """Computes a batch's positions, stores their keys and values, and scores what it wants scored.

    `run`: of a model's `Programs`; `width`: that of vectors in place of tokens.
    """
    parts = rectangles(batch, cache.nowhere)
    vectors = None if batch.vectors is None else _spread(batch, width)
    found = [_computed(run, part, cache, taps, vectors) for part in parts]
    order = scored_order(parts)

    def together(value: Callable[[Computed], Tensor]) -> Tensor:
        """The scored outputs of all rectangles, in the batch's order."""
        pieces = [value(one)[: len(part.outputs)] for part, one in zip(parts, found, strict=True)]
        joined = pieces[0] if len(pieces) == 1 else tf.concat(pieces, 0)
        return joined if order is None else tf.gather(joined, order)

    return Forward(
        together(lambda one: one.logits),
        together(lambda one: one.hidden) if taps.final_hidden else None,
        {n: together(lambda one, n=n: one.states[n]) for n in taps.hidden_states} or None,  # type: ignore[misc]
        {n: by_row(parts, [one.attentions[n] for one in found]) for n in taps.attentions} or None,
        {n: together(lambda one, n=n: one.early[n]) for n in taps.layer_logits} or None,  # type: ignore[misc]
    )


def _computed(run: Run, part: Rectangle, cache: TFCache, taps: Taps, vectors: Vectors) -> Computed:
    """A rectangle's outputs; its keys and values are in the cache then."""
    begins = not part.positions[:, 0].any()  # nothing is in the cache yet
    placed = None if vectors is None else (in_rectangle(part, vectors[0]), in_rectangle(part, vectors[1]))
    one = run(part, None if begins else cache.read(part.tables), taps, placed)
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
