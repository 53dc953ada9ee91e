"""A step of the engine in JAX: a ragged batch as rectangles, each by a compiled program, the outputs on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fabula.cache.groups import LayerGroup
from fabula.cache.jax import JaxCache
from fabula.errors import ArgumentError
from fabula.generation.prompts.rows import host_array
from fabula.models.passes.jax import Outputs, Program, Rows
from fabula.models.passes.jax_memory import rows_of, together
from fabula.models.passes.memories import Joined, joined
from fabula.models.weights.jax import Weights
from fabula.ops.protocol import Batch, Forward, Taps
from fabula.ops.rectangles import Rectangle, by_row, in_rectangle, rectangles, scored_order

__all__ = ["step"]


def step(program: Program, weights: Weights, batch: Batch, cache: JaxCache, taps: Taps) -> Forward:
    """What the batch's scored positions give, in NumPy; the cache has its keys and values."""
    parts, found = rectangles(batch, cache.nowhere), []
    memories = joined(batch.memories, together)
    vectors = _Vectors.of(batch, program.family.config.hidden_size)
    for part in parts:
        rows = _rows(part, cache.groups, bool(taps.attentions), vectors, memories)
        outputs, cache.state = program.in_blocks(weights, cache.state, rows, taps)
        found.append(outputs)
    return _forward(parts, found, taps, program.family.config.vocab_size, memories)


class _Vectors:
    """Vectors in place of ids, for all positions of a batch."""

    def __init__(self, values: np.ndarray, chosen: np.ndarray) -> None:
        self.values = values  # Float["T D"]
        self.chosen = chosen  # Bool["T"]

    @classmethod
    def of(cls, batch: Batch, width: int) -> _Vectors | None:
        """Those of a batch, if it has any. Raises ArgumentError for others than the model's."""
        if batch.vectors is None:
            return None
        given = host_array(batch.vectors, "inputs_embeds").astype(np.float32)
        if given.shape[1:] != (width,):
            raise ArgumentError(f"`inputs_embeds` must be {width} wide, got {given.shape[1]}.")
        values, chosen = np.zeros((len(batch.tokens), width), np.float32), np.zeros(len(batch.tokens), bool)
        places = slice(None) if batch.places is None else batch.places
        values[places], chosen[places] = given, True
        return cls(values, chosen)


def _rows(
    part: Rectangle, groups: Sequence[LayerGroup], whole: bool, vectors: _Vectors | None, memories: Joined | None
) -> Rows:
    """`whole`: every layer is to read all of a row, as its weights are wanted."""
    memory = None if memories is None else rows_of(memories, part)
    tables, starts = zip(*(part.reach(None if whole else group.window) for group in groups), strict=True)
    plain = (part.tokens, part.positions, part.slots, tables, starts, part.scored)
    if vectors is None:
        return Rows(*plain, memory=memory)
    values, chosen = (in_rectangle(part, x).reshape(part.tokens.size, -1) for x in (vectors.values, vectors.chosen))
    return Rows(*plain, values, chosen[:, 0], memory=memory)


def _forward(
    parts: Sequence[Rectangle], found: Sequence[Outputs], taps: Taps, vocabulary: int, memories: Joined | None
) -> Forward:
    order = scored_order(parts)

    def scored(values: Sequence[Any]) -> np.ndarray:
        """Float32["S ..."] of the batch's scored positions, to be written to at will."""
        own = [np.asarray(value)[: len(part.outputs)] for part, value in zip(parts, values, strict=True)]
        whole = np.concatenate(own).astype(np.float32, copy=False) if own else np.zeros((0, vocabulary), np.float32)
        return whole if order is None else whole[order]

    states = {layer: scored([one.states[layer] for one in found]) for layer in taps.hidden_states}
    early = {layer: scored([one.layer_logits[layer] for one in found]) for layer in taps.layer_logits}
    weights = {
        layer: by_row(parts, [np.asarray(one.attentions[layer], np.float32) for one in found])
        for layer in taps.attentions
    }
    hidden = scored([one.hidden for one in found]) if taps.final_hidden else None
    logits, across = scored([one.logits for one in found]), None
    if memories is not None and taps.attentions:
        layers = taps.attentions
        across = {layer: memories.by_row(parts, [one.memory_attentions[layer] for one in found]) for layer in layers}
    return Forward(logits, hidden, states or None, weights or None, early or None, across)
