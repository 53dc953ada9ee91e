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

from fabula.adapters.jax_calls import Called, Caller, check_taps, head_of, state_of
from fabula.adapters.remembered import RememberedTokens
from fabula.cache.blocks import BLOCK
from fabula.errors import FabulaError, NotSupportedError
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


@dataclass(frozen=True, slots=True)
class Lane:
    """Rows of one length, and what the module keeps of them."""

    tokens: np.ndarray  # Int["R C"]
    past: Any
    room: int | None  # the columns that there is room for; None: it grows


@dataclass(slots=True)
class Held:
    """What is kept from step to step, and what was found out about the module."""

    lanes: list[Lane] = field(default_factory=list)
    state: list[Any] = field(default_factory=list)  # the arrays with which the lanes were computed
    caller: Caller | None = None
    way: Way | None = None  # None: not tried yet


@dataclass(frozen=True, slots=True)
class Asked:
    """A row of which something is scored."""

    tokens: np.ndarray  # Int["L"], to the end of this step
    scored: np.ndarray  # Int["S"]: positions, rising
    outputs: np.ndarray  # Int["S"]: where they lie among the step's


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
    if batch.vectors is not None:
        raise NotSupportedError("`inputs_embeds` must be left out for this model, got some. Pass `input_ids`.")
    check_taps(module, taps)
    asked = _asked(batch, cache.rows(batch))
    if not asked:
        return Forward(np.zeros((0, module.vocabulary_size), np.float32))
    held = cache.held
    if (batch.first % BLOCK == 0).any():  # rows begin; and others may have been found by their first blocks
        _forget_if_changed(module, held)
    hidden = taps.final_hidden or bool(taps.hidden_states or taps.layer_logits)
    return _forward(module, _computed(module, held, asked, hidden), taps)


def _asked(batch: Batch, rows: Sequence[np.ndarray]) -> list[Asked]:
    """The rows with scored positions."""
    found = []
    for row, tokens in enumerate(rows):
        outputs = np.flatnonzero((batch.scored >= batch.starts[row]) & (batch.scored < batch.starts[row + 1]))
        if len(outputs):
            scored = batch.scored[outputs] - batch.starts[row] + batch.first[row]
            found.append(Asked(tokens, scored, outputs))
    return found


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
    for length in sorted({len(row.tokens) for row in asked}):
        rows = [row for row in asked if len(row.tokens) == length]
        tokens = np.stack([row.tokens for row in rows])
        lane, places = _continued(lanes, tokens, min(int(row.scored[0]) for row in rows), way)
        past, before, room = None, 0, None
        if lane is not None:
            past, before, room = _chosen(lane, places), lane.tokens.shape[1], lane.room
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


def _continued(lanes: Sequence[Lane], tokens: np.ndarray, limit: int, way: Way) -> tuple[Lane | None, list[int]]:
    """The lane that rows Int["R L"] go on from, with at most `limit` columns, and which of its rows each continues."""
    for lane in lanes:
        columns = lane.tokens.shape[1]
        if columns > limit or (lane.room is not None and tokens.shape[1] > lane.room):
            continue
        known = {row.tobytes(): place for place, row in enumerate(lane.tokens)}
        places = [known.get(row[:columns].tobytes(), -1) for row in tokens]
        same = places == list(range(len(lane.tokens)))
        if same or (-1 not in places and way.follows and _is_of_rows(lane.past, len(lane.tokens))):
            return lane, [] if same else places
    return None, []


def _chosen(lane: Lane, places: list[int]) -> Any:
    """What the module keeps of these rows, which may occur several times; []: of all, in order."""
    if not places:
        return lane.past
    rows, chosen = len(lane.tokens), np.array(places, np.int32)
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
    return Way(False, False, False, _alike(whole, call(module, behind, lengths).logits[:, :3]))


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
        return _alike(found.logits, whole[rows, 2:])
    except FabulaError:
        raise
    except Exception:  # a module that cannot be called like this is computed from the start
        return False


def _alike(logits: np.ndarray, others: np.ndarray) -> bool:
    return bool(np.allclose(logits, others, rtol=1e-4, atol=1e-4 * float(np.abs(others).max())))


def _forward(module: Any, parts: list[_Part], taps: Taps) -> Forward:
    """The scored outputs of all calls, in the step's order."""
    order = np.argsort(np.concatenate([row.outputs for rows, _, _ in parts for row in rows]))

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
