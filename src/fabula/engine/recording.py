"""What is kept of a turn beside its tokens: log-probabilities, scores, logits, hidden states, attentions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fabula import arrays
from fabula.decoding.beam_turns import Told
from fabula.decoding.closed.record import Gained, Recorded
from fabula.decoding.log_probabilities import log_probabilities, top_log_probabilities
from fabula.decoding.recipe import Record
from fabula.decoding.strategy import Choice
from fabula.engine.request import Kept, Step
from fabula.engine.seats import Seats
from fabula.ops.protocol import Forward

Top = tuple[tuple[int, float], ...]  # the most likely tokens and their log-probabilities


def steps_of(records: Sequence[Record], logits: Any, choice: Choice, forward: Forward, seats: Seats) -> list[Step]:
    """The chosen tokens, each with what its record wants."""
    xp = arrays.of(logits)
    tokens = xp.to_host(choice.tokens).tolist()
    if all(record.is_empty for record in records):
        return [Step(token) for token in tokens]
    count = max((record.log_probabilities for record in records if record.log_probabilities is not None), default=None)
    chances, best = (None, None) if count is None else likelihoods(logits, choice.tokens, count)
    raw = xp.to_host(logits).copy() if any(record.logits for record in records) else None
    scores = xp.to_host(choice.scores).copy() if any(record.scores for record in records) else None
    return [
        Step(
            token,
            log_probability=None if chances is None or record.log_probabilities is None else float(chances[place]),
            top=() if best is None or not record.log_probabilities else best[place][: record.log_probabilities],
            kept=_kept_of_place(record, place, scores, raw, forward, seats),
        )
        for place, (token, record) in enumerate(zip(tokens, records, strict=True))
    ]


def steps_of_burst(record: Record, gained: Gained) -> list[Step]:
    """A row's tokens of many turns, each with what its record wants."""
    tokens, told = gained.tokens.tolist(), gained.recorded
    if record.is_empty or told is None:
        return [Step(token) for token in tokens]
    chances: list[float | None] = [None] * len(tokens)
    best: list[Top] = [()] * len(tokens)
    if record.log_probabilities is not None:
        chances = told.chances.tolist()
    if record.log_probabilities:
        pairs = zip(told.best.tolist(), told.best_chances.tolist(), strict=True)
        best = [tuple(zip(*pair, strict=True))[: record.log_probabilities] for pair in pairs]
    kept = _kept_of_turns(record, told, len(tokens)) if record.keeps else [None] * len(tokens)
    return [Step(*each) for each in zip(tokens, chances, best, kept, strict=True)]


def _kept_of_turns(record: Record, told: Recorded, turns: int) -> list[Kept]:
    """What is kept of each; copies, so that what all rows of the burst have left can go."""
    scores = told.scores.copy() if record.scores else [None] * turns
    logits = told.logits.copy() if record.logits else [None] * turns
    return [Kept(*each) for each in zip(scores, logits, strict=True)]


def kept_of(record: Record, scores: Any, logits: Any, forward: Forward, seats: Seats, every: range) -> Kept | None:
    """What is kept of a search's turn, of all its rows, whose places are `every`; logits and seats are the party's."""
    if not record.keeps:
        return None
    xp = arrays.of(logits)
    return Kept(
        arrays.of(scores).to_host(scores).copy() if record.scores and scores is not None else None,
        xp.to_host(logits[every.start : every.stop]).copy() if record.logits else None,
        [states_of(forward, seats, place) for place in every] if record.hidden_states else None,
        [attentions_of(forward, seats, place) for place in every] if record.attentions else None,
        [cross_attentions_of(forward, seats, place) for place in every] if _across(record, forward) else None,
    )


def kept_of_burst(record: Record, scores: Sequence[Any], turns: Sequence[Told]) -> list[Kept]:
    """What is kept of each turn of a search that a loop made; scores are those of the turns that count, a move's.

    All are copies, so that what all groups of the burst have left can go.
    """
    if not record.keeps:
        return []
    return [
        Kept(
            np.array(own) if record.scores else None,
            np.array(told.logits) if record.logits else None,
        )
        for own, told in zip(scores, turns, strict=False)
    ]


def likelihoods(logits: Any, tokens: Any, count: int) -> tuple[np.ndarray, list[Top] | None]:
    """Float["R"]: the log-probabilities of tokens Int["R"] under logits Float["R V"], and the best `count` a row."""
    xp = arrays.of(logits)
    chances = xp.to_host(log_probabilities(logits, tokens))
    if not count:
        return chances, None
    best, values = (xp.to_host(part).tolist() for part in top_log_probabilities(logits, count))
    return chances, [tuple(zip(row, row_values, strict=True)) for row, row_values in zip(best, values, strict=True)]


def _kept_of_place(record: Record, place: int, scores: Any, raw: Any, forward: Forward, seats: Seats) -> Kept | None:
    if not record.keeps:
        return None
    return Kept(
        None if scores is None or not record.scores else scores[place],
        None if raw is None or not record.logits else raw[place],
        [states_of(forward, seats, place)] if record.hidden_states else None,
        [attentions_of(forward, seats, place)] if record.attentions else None,
        [cross_attentions_of(forward, seats, place)] if _across(record, forward) else None,
    )


def states_of(forward: Forward, seats: Seats, place: int) -> tuple[Any, ...]:
    """Float["N D"] for the embeddings, each layer but the last, and the last after the norm, at N positions."""
    assert forward.hidden_states is not None
    where = slice(*seats.outputs_of(place))
    states = [forward.hidden_states[layer] for layer in sorted(forward.hidden_states)]
    return tuple(_own(state[where]) for state in (*states, forward.hidden))


def attentions_of(forward: Forward, seats: Seats, place: int) -> tuple[Any, ...]:
    """Float["heads N keys"] for each layer: what N positions look at, up to the last of them."""
    assert forward.attentions is not None
    row = seats.rows[place]
    _, end = seats.computed[id(row)]
    order = list(seats.computed).index(id(row))
    (first, last), found = seats.outputs_of(place), []
    for layer in sorted(forward.attentions):
        weights = forward.attentions[layer][order]
        queries, keys = weights.shape[1:]
        found.append(_own(weights[:, queries - (end - first) : queries - (end - last), : keys - (end - last)]))
    return tuple(found)


def cross_attentions_of(forward: Forward, seats: Seats, place: int) -> tuple[Any, ...]:
    """Float["heads N S"] for each layer: what N positions look at among the S columns of the row's memory."""
    assert forward.memory_attentions is not None
    _, end = seats.computed[id(seats.rows[place])]
    order = list(seats.computed).index(id(seats.rows[place]))
    (first, last), found = seats.outputs_of(place), []
    for layer in sorted(forward.memory_attentions):
        weights = forward.memory_attentions[layer][order]
        queries = weights.shape[1]
        found.append(_own(weights[:, queries - (end - first) : queries - (end - last)]))
    return tuple(found)


def _across(record: Record, forward: Forward) -> bool:
    return record.attentions and forward.memory_attentions is not None


def _own(x: Any) -> Any:
    """What the next pass will not overwrite."""
    return x.copy() if isinstance(x, np.ndarray) else x
