"""What the engine asks of a model, answered for a `tf.Module` or Keras model that has a call of its own.

Rows of one length are computed together, so that nothing is padded; where a module without a cache turns out to look
only backwards, all rows are, padded behind their ends. What a module with a cache keeps follows the rows by their
tokens, as far as a trial shows that it can.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from fabula.adapters.calls import check_step, head_of, wants_states
from fabula.adapters.lengths import Asked, Lane, alike, asked_rows, by_length, continued, order_of
from fabula.adapters.remembered import RememberedTokens
from fabula.adapters.tensorflow_calls import Called, accepted, call_module, chosen_rows, is_of_rows, keeps
from fabula.cache.blocks import BLOCK
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps

Tensor = Any  # a tf.Tensor

COLUMNS = 16  # padded rectangles have a multiple of so many, so that a module's own tf.function sees few shapes


@dataclass(frozen=True, slots=True)
class Way:
    """What a trial showed of a module."""

    keeps: bool  # it has a cache of its own, and goes on from it as it should
    follows: bool  # rows can be taken from what it keeps, in any order
    backwards: bool  # padding behind a row changes nothing


@dataclass(slots=True)
class Held:
    """What is kept from step to step, and what was found out about the module."""

    lanes: list[Lane] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)  # the weights with which the lanes were computed
    way: Way | None = None  # None: not tried yet


def vocabulary_size(module: Any) -> int:
    """How many logits the module gives for a token; found out once."""
    known = module.__dict__.get("_adapted")
    if known is None:
        logits = call_module(module, np.zeros((1, 1), np.int32), np.ones(1, np.int32)).logits
        known = module.__dict__["_adapted"] = int(logits.shape[-1])
    return known


def inputs_like(module: Any) -> Tensor:
    """A tensor where outputs go that have no inputs to follow."""
    return tf.zeros(0)


def new_cache(blocks: int) -> RememberedTokens:
    """Storage for so many blocks of tokens; what the module keeps beside them grows with its rows."""
    return RememberedTokens(blocks, Held())


def step(module: Any, batch: Batch, cache: RememberedTokens, taps: Taps = NO_TAPS) -> Forward:
    """Computes the rows of which something is scored; the others wait with their tokens until it is.

    Raises NotSupportedError for vectors in place of ids, and for what the module does not return.
    """
    check_step(batch, taps, "output_hidden_states" in accepted(module), head_of(module), "__call__")
    asked = asked_rows(batch, cache.rows(batch))
    if not asked:
        return Forward(tf.zeros((0, module.vocabulary_size)))
    held = cache.held
    if (batch.first % BLOCK == 0).any():  # rows begin; and others may have been found by their first blocks
        _forget_if_changed(module, held)
    return _forward(module, _computed(module, held, asked, wants_states(taps)), taps)


def _forget_if_changed(module: Any, held: Held) -> None:
    """Drops the lanes if the module's weights are not those that they were computed with."""
    values = [tf.convert_to_tensor(one) for one in module.variables]
    if len(values) != len(held.values) or not all(map(_same, values, held.values)):
        held.values, held.lanes = values, []


def _same(value: Tensor, other: Tensor) -> bool:
    """Whether two values are equal; those of a variable that nobody assigned to lie at one place."""
    ours, others = np.asarray(value), np.asarray(other)
    return bool(ours.ctypes.data == others.ctypes.data or np.array_equal(ours, others))


_Part = tuple[list[Asked], Called, int]  # rows, what a call gave, and the position of its first column


def _computed(module: Any, held: Held, asked: list[Asked], hidden: bool) -> list[_Part]:
    """All rows, in as many calls as they need."""
    if held.way is None:
        held.way = _tried(module)
    if held.way.backwards and not held.way.keeps:
        return [(asked, _padded(module, asked, hidden), 0)]
    way, lanes, parts = held.way, held.lanes, []
    held.lanes = []
    for rows, tokens, limit in by_length(asked):
        lane, places = continued(lanes, tokens, limit, lambda lane: way.follows and is_of_rows(lane.past, lane.rows))
        past, before = None, 0
        if lane is not None:
            past, before = chosen_rows(lane.past, np.array(places, np.int32)) if places else lane.past, lane.columns
        found = call_module(module, tokens, np.full(len(rows), tokens.shape[1]), past, before, hidden)
        if found.past is not None and way.keeps:
            held.lanes.append(Lane(tokens, found.past))
        parts.append((rows, found, before))
    return parts


def _tried(module: Any) -> Way:
    """What two short rows show, alone, with padding, and with the module's cache."""
    ids, lengths = np.array([[0, 1, 1], [1, 0, 1]], np.int32), np.array([3, 3])
    if not keeps(module):
        padded = call_module(module, np.concatenate([ids, 1 - ids], 1), lengths).logits
        return Way(False, False, alike(call_module(module, ids, lengths).logits, padded[:, :3]))
    whole, begun = call_module(module, ids, lengths), call_module(module, ids[:, :2], lengths - 1)
    past = begun.past

    def goes_on(order: list[int], past: Any) -> bool:
        return alike(call_module(module, ids[order], lengths, past, 2).logits, tf.gather(whole.logits[:, 2:], order))

    follows = is_of_rows(past, 2) and goes_on([1, 0], chosen_rows(past, np.array([1, 0], np.int32)))
    return Way(past is not None and goes_on([0, 1], past), follows, False)


def _padded(module: Any, asked: list[Asked], hidden: bool) -> Called:
    """All rows in one call, padded behind their ends."""
    lengths = np.array([len(row.tokens) for row in asked])
    width = -(-int(lengths.max()) // COLUMNS) * COLUMNS
    width = min(width, max(int(lengths.max()), module.context_length))
    ids = np.stack([np.pad(row.tokens, (0, width - len(row.tokens))) for row in asked])
    return call_module(module, ids, lengths, hidden=hidden)


def _forward(module: Any, parts: list[_Part], taps: Taps) -> Forward:
    """The scored outputs of all calls, in the step's order."""
    order = order_of([row for rows, _, _ in parts for row in rows]).astype(np.int32)

    def together(values: list[Tensor]) -> Tensor:
        pieces = [
            tf.gather(value[place], row.scored - before)
            for value, (rows, _, before) in zip(values, parts, strict=True)
            for place, row in enumerate(rows)
        ]
        return tf.gather(tf.concat(pieces, 0), order)

    def states(layer: int) -> Tensor:
        return together([called.hidden[layer] for _, called, _ in parts if called.hidden is not None])

    head = head_of(module)
    return Forward(
        together([called.logits for _, called, _ in parts]),
        states(-1) if taps.final_hidden else None,
        {layer: states(layer) for layer in taps.hidden_states} or None,
        layer_logits={layer: tf.cast(head(states(layer)), tf.float32) for layer in taps.layer_logits} or None,
    )
