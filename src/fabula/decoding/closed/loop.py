"""The loop of closed rows: forward, processors, choice and append, until nothing but the host can go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fabula import arrays
from fabula.arrays.random import Words, row_key
from fabula.context import Context
from fabula.decoding.closed.pairs import pairs_of
from fabula.decoding.closed.record import Recorded, noted
from fabula.decoding.closed.rows import ClosedRows, Form
from fabula.decoding.sample import best_tokens, keyed_noise
from fabula.processors.columns import process_of

__all__ = ["Choose", "Forward", "Turn", "appended", "chooser", "decode", "keys_of"]

# (tokens Int["M"], their positions Int["M"], the model's state) -> (logits Float["M V"], the model's next state)
# Where the form has layers the logits are a sequence: the last layer's, and then those after each of them.
Forward = Callable[[Any, Any, Any], tuple[Any, Any]]


class Turn(NamedTuple):
    """R rows between two tokens. What has ended stays as it is, and is computed once more as it was."""

    tokens: Any  # Int["R L"]
    lengths: Any  # Int["R"]
    last: Any  # Int["M"]: what the model computes next
    position: Any  # Int["M"]: where
    ended: Any  # Bool["R"]
    model: Any  # the model's state
    kept: Any  # a Recorded; () where nothing is


# (what a forward gives, the rows) -> (tokens Int["R"], whether each is one Bool["R"], their scores Float["R V"])
Choose = Callable[[Any, Turn], tuple[Any, Any, Any]]


def decode(
    forward: Forward,
    state: Any,
    form: Form,
    rows: ClosedRows,
    choose: Choose | None = None,
    loop: Callable[..., Any] | None = None,
    kept: Recorded | tuple[()] = (),
) -> Turn:
    """The rows once all have ended or used their room.

    A row also ends before a token whose score is no finite number. The same code runs eagerly and inside a compiled
    loop: shapes are fixed, and what has ended stays as it is. A backend may `choose` by itself, as the form's rows do,
    and bring a `loop` of its own in place of the framework's `while_loop`. Where the form's record wants
    something, `kept` is what `blank` makes.
    """
    xp = arrays.of(rows.tokens)
    choose = choose or chooser(xp, form, rows)
    pairs = pairs_of(xp, form.each, rows.position)

    def goes_on(turn: Turn) -> Any:
        some = xp.any(turn.ended & (rows.room > 0), axis=0)
        return ~xp.all(turn.ended, axis=0) & ~(some & rows.hurried[0])

    def step(turn: Turn) -> Turn:
        logits, model = forward(turn.last, turn.position, turn.model)
        chosen, finite, scores = choose(logits, turn)
        grows = finite & ~turn.ended
        lengths = turn.lengths + xp.astype(grows, "int32")
        tokens = appended(xp, turn.tokens, lengths, grows, chosen)
        ends = xp.any(chosen[:, None] == rows.ends) | (lengths - rows.lengths >= rows.room)
        stays = ends | ~grows
        each_stays, each_chosen = pairs.spread(stays), pairs.spread(chosen)
        last = xp.where(each_stays, turn.last, each_chosen)
        position = turn.position + xp.astype(~each_stays, "int32")
        found = noted(xp, form, turn.kept, _heads(xp, form, logits)[0], scores, chosen)
        return Turn(tokens, lengths, last, position, turn.ended | stays, model, found)

    begin = Turn(rows.tokens, rows.lengths, rows.last, rows.position, rows.room <= 0, state, kept)
    end: Turn = (loop or xp.while_loop)(goes_on, step, begin)
    return end


def chooser(xp: Any, form: Form, rows: ClosedRows, keys: Words | None = None) -> Choose:
    """The rows' processors, and then each row's best token or its keyed draw.

    `keys`: what `keys_of` makes of the rows, if that is known.
    """
    process = process_of(form.columns, rows.numbers)
    keys = keys_of(xp, form, rows) if keys is None else keys

    def choose(logits: Any, turn: Turn) -> tuple[Any, Any, Any]:
        scores, negative = _told(xp, form, logits)
        context = Context(turn.tokens, turn.lengths, rows.prompt_lengths, unconditional=negative)
        scores = process(scores, context)
        chosen = _chosen(xp, scores, rows.sampled, keys, rows.hidden + turn.lengths)
        return chosen, xp.take_along_axis(scores, chosen[:, None])[:, 0] > -float("inf"), scores

    return choose


def keys_of(xp: Any, form: Form, rows: ClosedRows) -> Words | None:
    """By what the rows' draws are keyed, Int["R"] each; None where none draws."""
    return row_key(xp, (rows.seed_low, rows.seed_high), rows.stream) if form.draws else None


def _told(xp: Any, form: Form, logits: Any) -> tuple[Any, Any]:
    """Float32["R V"]: what the processors are given, and the logits after the negative prompts or None.

    Where they then forbid all that a contrast leaves, the row ends here, and the host asks them about the rest.
    """
    own, *early = _heads(xp, form, logits)
    negative = None if form.each == 1 else _heads(xp, form, logits, 1)[0]
    return own if form.contrast is None else form.contrast.contrasted(xp, own, early), negative


def _heads(xp: Any, form: Form, logits: Any, place: int = 0) -> list[Any]:
    """Float32["R V"] for the last layer and each of the form's; `place`: of which of the model's rows of each row."""
    return [xp.astype(head[place :: form.each], "float32") for head in (logits if form.layers else [logits])]


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
