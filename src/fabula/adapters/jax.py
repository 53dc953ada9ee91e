"""What the engine asks of a model, answered for a module of Flax that has a call of its own.

A module without a cache that looks only backwards computes all rows in one rectangle, padded behind their ends to a
bucket, so that it is compiled for few shapes; any other computes rows of one length together. What a module with a
cache keeps follows the rows by their tokens, as far as a trial shows that it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fabula.adapters.calls import check_step, head_of, wants_states
from fabula.adapters.jax_calls import Called, Caller, accepted, state_of
from fabula.adapters.lengths import Asked, Lane, alike, asked_rows, by_length, continued, order_of
from fabula.adapters.remembered import RememberedTokens
from fabula.cache.blocks import BLOCK
from fabula.errors import FabulaError
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps
from fabula.ops.rectangles import bucket

COLUMNS = 16  # the least of a padded rectangle


@dataclass(frozen=True, slots=True)
class Way:
    """What a trial showed of a module."""

    starts: bool  # it goes on from a cache that `init_cache` made
    keeps: bool  # it goes on from a cache of its own
    follows: bool  # rows can be taken from what it keeps, in any order
    backwards: bool  # padding behind a row changes nothing


@dataclass(slots=True)
class Held:
    """What is kept from step to step, and what was found out about the module."""

    lanes: list[Lane] = field(default_factory=list)
    state: list[Any] = field(default_factory=list)  # the arrays with which the lanes were computed
    caller: Caller | None = None
    way: Way | None = None  # None: not tried yet


def vocabulary_size(module: Any) -> int:
    """How many logits the module gives for a token."""
    return int(Caller(module)(module, np.zeros((1, 1), np.int32), np.ones(1, np.int32)).logits.shape[-1])


def inputs_like(module: Any) -> jax.Array:
    """An array where outputs go that have no inputs to follow."""
    return jnp.zeros(0)


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
        return Forward(np.zeros((0, module.vocabulary_size), np.float32))
    held = cache.held
    if (batch.first % BLOCK == 0).any():  # rows begin; and others may have been found by their first blocks
        _forget_if_changed(module, held)
    return _forward(module, _computed(module, held, asked, wants_states(taps)), taps)


def _forget_if_changed(module: Any, held: Held) -> None:
    """Drops the lanes if the module's arrays are not those that they were computed with."""
    state = state_of(module)
    if len(state) != len(held.state) or any(one is not other for one, other in zip(state, held.state, strict=True)):
        held.state, held.lanes = state, []


_Part = tuple[list[Asked], Called, int]  # rows, what a call gave, and the position of its first column


def _computed(module: Any, held: Held, asked: list[Asked], hidden: bool) -> list[_Part]:
    """All rows, in as many calls as they need."""
    if held.caller is None or held.way is None:
        held.caller = Caller(module)
        held.way = _tried(module, held.caller)
    call, way = held.caller, held.way
    if way.backwards and not (way.keeps or way.starts):
        return [(asked, _padded(module, call, asked, hidden), 0)]
    lanes, parts = held.lanes, []
    held.lanes = []
    for rows, tokens, limit in by_length(asked):
        lane, places = continued(lanes, tokens, limit, lambda lane: way.follows and _is_of_rows(lane.past, lane.rows))
        past, before, room, length = None, 0, None, tokens.shape[1]
        if lane is not None:
            past, before, room = _chosen(lane, places), lane.columns, lane.room
        elif way.starts:
            room = min(bucket(length + 1, 4 * COLUMNS), module.context_length)
            past = module.init_cache(len(rows), room)
        found = call(module, tokens, np.full(len(rows), length), past, before, hidden, room)
        if found.past is not None and (way.keeps or way.starts):
            held.lanes.append(Lane(tokens, found.past, room))
        parts.append((rows, found, before))
    return parts


def _padded(module: Any, call: Caller, asked: list[Asked], hidden: bool) -> Called:
    """All rows in one call, padded behind their ends, beside rows of padding."""
    lengths = np.array([len(row.tokens) for row in asked])
    longest = int(lengths.max())
    width = max(longest, min(bucket(longest, COLUMNS), module.context_length))
    ids = np.zeros((bucket(len(asked)), width), np.int32)
    for place, row in enumerate(asked):
        ids[place, : len(row.tokens)] = row.tokens
    return call(module, ids, np.pad(lengths, (0, len(ids) - len(asked)), constant_values=1), hidden=hidden)


def _chosen(lane: Lane, places: list[int]) -> Any:
    """What the module keeps of these rows, which may occur several times; []: of all, in order."""
    if not places:
        return lane.past
    rows, chosen = lane.rows, np.array(places, np.int32)
    return jax.tree.map(lambda part: part[chosen] if _has_rows(part, rows) else part, lane.past)


def _is_of_rows(past: Any, rows: int) -> bool:
    """Whether every array of what a module keeps, but for single numbers, may have a row for each of its rows."""
    parts = jax.tree.leaves(past)
    return any(_has_rows(part, rows) for part in parts) and all(
        _has_rows(part, rows) or np.size(part) == 1 for part in parts
    )


def _has_rows(part: Any, rows: int) -> bool:
    return bool(np.ndim(part)) and np.shape(part)[0] == rows


def _tried(module: Any, call: Caller) -> Way:
    """What two short rows show: alone, with padding, and with the module's cache."""
    ids, lengths = np.array([[0, 1, 1], [1, 0, 1]], np.int32), np.array([3, 3])
    whole = call(module, ids, lengths).logits
    starts = call.starts(module) and _goes_on(module, call, ids, whole, room=4 * COLUMNS)
    keeps = call.keeps and not starts and _goes_on(module, call, ids, whole)
    if starts or keeps:
        room = 4 * COLUMNS if starts else None
        return Way(starts, keeps, _goes_on(module, call, ids, whole, room, [1, 0]), False)
    behind = np.concatenate([ids, 1 - ids], 1)
    return Way(False, False, False, alike(whole, call(module, behind, lengths).logits[:, :3]))


def _goes_on(
    module: Any, call: Caller, ids: np.ndarray, whole: np.ndarray, room: int | None = None, order: Sequence[int] = ()
) -> bool:
    """Whether the last column after the first two, with rows in another order, is what it is in the whole."""
    try:
        past = None if room is None else module.init_cache(len(ids), room)
        begun = call(module, ids[:, :2], np.array([2, 2]), past, room=room).past
        if begun is None or (order and not _is_of_rows(begun, len(ids))):
            return False
        kept = _chosen(Lane(ids[:, :2], begun, room), list(order))
        rows = list(order) or [0, 1]
        found = call(module, ids[rows], np.array([3, 3]), kept, 2, room=room)
        return alike(found.logits, whole[rows, 2:])
    except FabulaError:
        raise
    except Exception:  # a module that cannot be called like this is computed from the start
        return False


def _forward(module: Any, parts: list[_Part], taps: Taps) -> Forward:
    """The scored outputs of all calls, in the step's order."""
    order = order_of([row for rows, _, _ in parts for row in rows])

    def together(values: list[np.ndarray]) -> np.ndarray:
        pieces = [
            value[place][row.scored - before]
            for value, (rows, _, before) in zip(values, parts, strict=True)
            for place, row in enumerate(rows)
        ]
        return np.concatenate(pieces)[order]

    def states(layer: int) -> np.ndarray:
        return together([called.hidden[layer] for _, called, _ in parts if called.hidden is not None])

    def early(layer: int) -> np.ndarray:
        return np.asarray(head_of(module)(jnp.asarray(states(layer))), np.float32)

    return Forward(
        together([called.logits for _, called, _ in parts]),
        states(-1) if taps.final_hidden else None,
        {layer: states(layer) for layer in taps.hidden_states} or None,
        layer_logits={layer: early(layer) for layer in taps.layer_logits} or None,
    )
