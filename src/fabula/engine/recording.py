"""What is kept of a turn beside its tokens: log-probabilities, scores, logits, hidden states, attentions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fabula import arrays
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


def kept_of(record: Record, scores: Any, logits: Any, forward: Forward, seats: Seats) -> Kept | None:
    """What is kept of a search's turn, of all its rows."""
    if not record.keeps:
        return None
    xp = arrays.of(logits)
    return Kept(
        xp.to_host(scores).copy() if record.scores and scores is not None else None,
        xp.to_host(logits).copy() if record.logits else None,
    )


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
    )
