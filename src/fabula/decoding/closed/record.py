"""What a closed loop keeps of its turns beside the tokens: likelihoods, scores, logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fabula.decoding.closed.rows import ClosedRows, Form
from fabula.decoding.log_probabilities import log_probabilities, top_log_probabilities

__all__ = ["Gained", "Recorded", "blank", "gained_of", "noted", "recorded_of", "turns_within"]

MOST = 64 << 20  # bytes: what a burst keeps of scores and logits


class Recorded(NamedTuple):
    """Of T turns of R rows what the form's record wants; () where it does not. In whatever framework."""

    turn: Any  # Int["1"]: how many turns were made
    chances: Any = ()  # Float32["T R"]: the log-probabilities of the chosen tokens
    best: Any = ()  # Int["T R N"]: the N likeliest tokens
    best_chances: Any = ()  # Float32["T R N"]: their log-probabilities
    scores: Any = ()  # Float32["T R V"]: after the processors
    logits: Any = ()  # Float32["T R V"]


@dataclass(frozen=True, slots=True)
class Gained:
    """What one row got from a burst of K turns, on the host."""

    tokens: np.ndarray  # Int["K"]
    recorded: Recorded | None = None  # ["K ..."]: of this row; None where nothing is wanted

    def __len__(self) -> int:
        return len(self.tokens)


def turns_within(form: Form, rows: int, vocabulary: int, most: int) -> int:
    """How many turns of so many rows a burst may have, up to `most`, for what it keeps to stay within MOST."""
    matrices = int(form.record.scores) + int(form.record.logits)
    return max(1, min(most, MOST // max(1, 4 * rows * vocabulary * matrices)))


def blank(xp: Any, form: Form, rows: ClosedRows, turns: int, vocabulary: int) -> Recorded | tuple[()]:
    """Room for so many turns, and one more: what has ended is computed once more."""
    record, like, shape = form.record, rows.lengths, (turns + 1, rows.lengths.shape[0])
    if record.is_empty:
        return ()
    top = min(record.log_probabilities or 0, vocabulary)
    return Recorded(
        xp.zeros((1,), "int32", like=like),
        () if record.log_probabilities is None else xp.zeros(shape, "float32", like=like),
        xp.zeros((*shape, top), "int32", like=like) if top else (),
        xp.zeros((*shape, top), "float32", like=like) if top else (),
        xp.zeros((*shape, vocabulary), "float32", like=like) if record.scores else (),
        xp.zeros((*shape, vocabulary), "float32", like=like) if record.logits else (),
    )


def noted(xp: Any, form: Form, kept: Any, logits: Any, scores: Any, chosen: Any) -> Any:
    """With a turn's: the model's logits Float32["R V"], the processors' scores and the chosen tokens Int["R"]."""
    record = form.record
    if record.is_empty:
        return kept
    top = top_log_probabilities(logits, kept.best.shape[-1]) if record.log_probabilities else None
    place = kept.turn

    def put(where: Any, values: Any) -> Any:
        return xp.set_rows(where, place, values[None])

    return Recorded(
        xp.minimum(place + 1, _turns(kept) - 1),
        () if record.log_probabilities is None else put(kept.chances, log_probabilities(logits, chosen)),
        () if top is None else put(kept.best, xp.astype(top[0], "int32")),
        () if top is None else put(kept.best_chances, top[1]),
        put(kept.scores, scores) if record.scores else (),
        put(kept.logits, logits) if record.logits else (),
    )


def gained_of(rows: ClosedRows, tokens: np.ndarray, lengths: np.ndarray, kept: Any, count: int) -> list[Gained]:
    """What each of the first `count` rows gained, from what `decode` made, on the host."""
    bounds = list(zip(rows.lengths.tolist(), lengths.tolist(), strict=True))[:count]
    return [
        Gained(tokens[row, start:end], recorded_of(kept, row, end - start) if kept else None)
        for row, (start, end) in enumerate(bounds)
    ]


def recorded_of(kept: Recorded, row: int, turns: int) -> Recorded:
    """The first turns of one row."""
    parts: Sequence[Any] = [part if isinstance(part, tuple) else part[:turns, row] for part in kept[1:]]
    return Recorded(turns, *parts)


def _turns(kept: Recorded) -> int:
    """T."""
    return int(next(part.shape[0] for part in kept[1:] if not isinstance(part, tuple)))
