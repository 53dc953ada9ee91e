"""Many tokens of rows that need nobody but the device: forward, processors, choice and append as one loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from fabula import arrays
from fabula.arrays.random import Words, row_key, split_seed
from fabula.context import Context
from fabula.decoding.recipe import Recipe
from fabula.decoding.sample import best_tokens, keyed_noise
from fabula.processors.columns import Column, Numbers, columns_of, process_of

__all__ = [
    "Choose",
    "ClosedRow",
    "ClosedRows",
    "Form",
    "Forward",
    "Turn",
    "appended",
    "close",
    "decode",
    "leaves_of",
    "map_arrays",
    "new_tokens",
    "padded",
]

# (tokens Int["R"], their positions Int["R"], the model's state) -> (logits Float["R V"], the model's next state)
Forward = Callable[[Any, Any, Any], tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Form:
    """What a loop is compiled for, beside the shapes of its arrays; equal forms are one loop."""

    columns: tuple[Column, ...]  # the rows' processors
    draws: bool  # whether some row draws


@dataclass(frozen=True, slots=True)
class ClosedRows:
    """R rows, and all numbers that decide how they go on; NumPy arrays on the host, or a framework's in its loop."""

    tokens: Any  # Int["R L"]: what processors may see, prompt first, with room for all new tokens
    lengths: Any  # Int["R"]: how many of those count
    prompt_lengths: Any  # Int["R"]: how many of them are the prompt
    hidden: Any  # Int["R"]: tokens before them that nobody may see
    last: Any  # Int["R"]: the last token, which the model computes next
    room: Any  # Int["R"]: the most new tokens
    longest: Any  # Int["R"]: how long the row may become later on, hidden tokens included; shapes are chosen by it
    ends: Any  # Int["R E"]: the tokens that end a row; -1 is none
    sampled: Any  # Bool["R"]: rows that draw; the others take the best token
    seed_low: Any  # Int["R"]: the rows' seeds, as arrays/random.py splits them
    seed_high: Any  # Int["R"]
    stream: Any  # Int["R"]
    hurried: Any  # Bool["1"]: whether the loop ends with the first row that ends
    numbers: tuple[Numbers, ...]  # of each of the form's columns


class Turn(NamedTuple):
    """R rows between two tokens. What has ended stays as it is, and is computed once more as it was."""

    tokens: Any  # Int["R L"]
    lengths: Any  # Int["R"]
    last: Any  # Int["R"]: what the model computes next
    position: Any  # Int["R"]: where
    ended: Any  # Bool["R"]
    model: Any  # the model's state


# (logits Float["R V"], the rows) -> (tokens Int["R"], whether each is one Bool["R"])
Choose = Callable[[Any, Turn], tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class ClosedRow:
    """One row on the host."""

    tokens: np.ndarray  # Int["L"], those that nobody may see first
    prompt_length: int
    hidden: int
    room: int
    seed: int
    stream: int
    recipe: Recipe


def close(rows: Sequence[ClosedRow], hurried: bool = False) -> tuple[Form, ClosedRows] | None:
    """The rows as arrays; None where a processor works only on rows of its own or looks at numbers on the host."""
    found = columns_of([row.recipe.processors for row in rows])
    if found is None:
        return None
    columns, numbers = found
    seeds = np.array([split_seed(row.seed) for row in rows], np.int32)
    closed = ClosedRows(
        tokens=_matrix([row.tokens[row.hidden :] for row in rows], max(_end(row) for row in rows), 0),
        lengths=_whole(len(row.tokens) - row.hidden for row in rows),
        prompt_lengths=_whole(row.prompt_length - row.hidden for row in rows),
        hidden=_whole(row.hidden for row in rows),
        last=_whole(row.tokens[-1] for row in rows),
        room=_whole(row.room for row in rows),
        longest=_whole(row.recipe.limits.max_length for row in rows),
        ends=_matrix([sorted(row.recipe.limits.eos) for row in rows], 1, -1),
        sampled=np.array([row.recipe.sampled for row in rows]),
        seed_low=seeds[:, 0],
        seed_high=seeds[:, 1],
        stream=_whole(row.stream for row in rows),
        hurried=np.array([hurried]),
        numbers=numbers,
    )
    return Form(columns, bool(closed.sampled.any())), closed


def map_arrays(rows: ClosedRows, function: Callable[[np.ndarray], Any]) -> ClosedRows:
    """The same with each array as the function makes it, such as a framework's."""
    numbers = tuple({name: function(value) for name, value in own.items()} for own in rows.numbers)
    parts = {each.name: function(getattr(rows, each.name)) for each in fields(rows) if each.name != "numbers"}
    return ClosedRows(**parts, numbers=numbers)


def leaves_of(rows: ClosedRows) -> tuple[list[np.ndarray], Callable[[Sequence[Any]], ClosedRows]]:
    """All arrays of the rows, and what makes rows of others in their places: what a compiled function takes."""
    leaves: list[np.ndarray] = []
    map_arrays(rows, lambda part: leaves.append(part))
    names = [tuple(own) for own in rows.numbers]

    def rebuild(others: Sequence[Any]) -> ClosedRows:
        rest = iter(others)
        numbers = tuple({name: next(rest) for name in own} for own in names)
        return ClosedRows(**{each.name: next(rest) for each in fields(rows) if each.name != "numbers"}, numbers=numbers)

    return leaves, rebuild


def padded(rows: ClosedRows, count: int, width: int) -> ClosedRows:
    """The same with `count` rows, of which the new ones have ended, over `width` columns; end tokens in powers of 2."""
    most_ends = 1 << (rows.ends.shape[1] - 1).bit_length()
    wider = replace(
        rows,
        tokens=np.pad(rows.tokens, ((0, 0), (0, width - rows.tokens.shape[1]))),
        ends=np.pad(rows.ends, ((0, 0), (0, most_ends - rows.ends.shape[1])), constant_values=-1),
    )
    more = count - len(rows.lengths)
    if not more:
        return wider
    parts = {name: np.pad(getattr(wider, name), _below(getattr(wider, name), more)) for name in _EACH}
    numbers = tuple({name: _repeated(value, more) for name, value in own.items()} for own in rows.numbers)
    return replace(wider, numbers=numbers, **parts)


def decode(
    forward: Forward,
    state: Any,
    form: Form,
    rows: ClosedRows,
    choose: Choose | None = None,
    loop: Callable[..., Any] | None = None,
) -> tuple[Any, Any, Any]:
    """The rows' tokens Int["R L"] and lengths Int["R"] once all have ended or used their room, and the model's state.

    A row also ends before a token whose score is no finite number. The same code runs eagerly and inside a compiled
    loop: shapes are fixed, and what has ended stays as it is. A backend may `choose` by itself, as the form's rows do,
    and bring a `loop` of its own in place of the framework's `while_loop`.
    """
    xp = arrays.of(rows.tokens)
    choose = choose or _chooser(xp, form, rows)

    def goes_on(turn: Turn) -> Any:
        some = xp.any(turn.ended & (rows.room > 0), axis=0)
        return ~xp.all(turn.ended, axis=0) & ~(some & rows.hurried[0])

    def step(turn: Turn) -> Turn:
        logits, model = forward(turn.last, turn.position, turn.model)
        chosen, finite = choose(logits, turn)
        grows = finite & ~turn.ended
        lengths = turn.lengths + xp.astype(grows, "int32")
        tokens = appended(xp, turn.tokens, lengths, grows, chosen)
        ends = xp.any(chosen[:, None] == rows.ends) | (lengths - rows.lengths >= rows.room)
        stays = ends | ~grows
        position = turn.position + xp.astype(~stays, "int32")
        return Turn(tokens, lengths, xp.where(stays, turn.last, chosen), position, turn.ended | stays, model)

    position = xp.maximum(rows.hidden + rows.lengths - 1, 0)
    begin = Turn(rows.tokens, rows.lengths, rows.last, position, rows.room <= 0, state)
    end = (loop or xp.while_loop)(goes_on, step, begin)
    return end.tokens, end.lengths, end.model


def _chooser(xp: Any, form: Form, rows: ClosedRows) -> Choose:
    """The rows' processors, and then each row's best token or its keyed draw."""
    process = process_of(form.columns, rows.numbers)
    keys = row_key(xp, (rows.seed_low, rows.seed_high), rows.stream) if form.draws else None

    def choose(logits: Any, turn: Turn) -> tuple[Any, Any]:
        context = Context(turn.tokens, turn.lengths, rows.prompt_lengths)
        scores = process(xp.astype(logits, "float32"), context)
        chosen = _chosen(xp, scores, rows.sampled, keys, turn.position + 1)
        return chosen, xp.take_along_axis(scores, chosen[:, None])[:, 0] > -float("inf")

    return choose


def new_tokens(rows: ClosedRows, tokens: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """For each row the tokens that it gained, from what `decode` made, on the host; what was padded is left out."""
    bounds = zip(tokens, rows.lengths.tolist(), lengths.tolist(), strict=False)
    return [row[start:end] for row, start, end in bounds]


def _chosen(xp: Any, scores: Any, sampled: Any, keys: Words | None, position: Any) -> Any:
    """Int["R"]: a keyed draw in rows that draw, else the best token; without keys no row draws."""
    if keys is None:
        return best_tokens(xp, scores)
    tokens, values = xp.survivors(scores)
    noise = keyed_noise(xp, keys, position, tokens)
    winner = xp.argmax(xp.where(sampled[:, None], values + noise, values))
    return xp.take_along_axis(tokens, winner[:, None])[:, 0]


def appended(xp: Any, tokens: Any, lengths: Any, grows: Any, chosen: Any) -> Any:
    """Tokens ["R L"] with the chosen ones as the last of `lengths` where a row grows."""
    place = xp.maximum(lengths - 1, 0)[:, None]
    before = xp.take_along_axis(tokens, place)
    return xp.scatter_set(tokens, place, xp.where(grows[:, None], chosen[:, None], before))


_EACH = (  # what has an entry a row, and is 0 or False in a row that has ended
    "tokens",
    "lengths",
    "prompt_lengths",
    "hidden",
    "last",
    "room",
    "longest",
    "ends",
    "sampled",
    "seed_low",
    "seed_high",
    "stream",
)


def _below(values: np.ndarray, more: int) -> list[tuple[int, int]]:
    return [(0, more)] + [(0, 0)] * (values.ndim - 1)


def _repeated(values: np.ndarray, more: int) -> np.ndarray:
    return np.concatenate([values, np.repeat(values[:1], more, axis=0)])


def _end(row: ClosedRow) -> int:
    return len(row.tokens) - row.hidden + row.room


def _whole(values: Any) -> np.ndarray:
    return np.fromiter(values, np.int32)


def _matrix(rows: Sequence[Sequence[int] | np.ndarray], width: int, filler: int) -> np.ndarray:
    matrix = np.full((len(rows), max(width, *map(len, rows))), filler, np.int32)
    for place, row in enumerate(rows):
        matrix[place, : len(row)] = row
    return matrix
