"""A prompt's sequences with what was recorded of each: ids, log-probabilities, why it ended, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fabula.cli.timings import timings
from fabula.engine.request import Request
from fabula.generation.generate import Call, prepare, run


@dataclass(frozen=True, slots=True)
class Answer:
    """One sequence."""

    ids: list[int]  # new tokens
    log_probabilities: list[float | None]  # of each, by the raw logits
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class Answers:
    """All sequences of one prompt."""

    sequences: list[Answer]
    timings: Mapping[str, float | int]  # of all of them together


def answers(model: Any, ids: list[int], settings: Mapping[str, Any]) -> Answers:
    """All sequences that the settings ask for."""
    call = prepare(model, [ids], None, None, dict(settings))
    run(model, replace(call, requests=[_recorded(request) for request in call.requests]))
    ended = time.monotonic()
    sequences = [
        Answer([step.token for step in steps], [step.log_probability for step in steps], reason)
        for collector in call.collectors
        for steps, reason in zip(collector.steps, collector.reasons, strict=True)
    ]
    predicted = sum(len(sequence.ids) for sequence in sequences)
    return Answers(sequences, timings(len(ids), call.started, _first_token_at(call), predicted, ended))


def _recorded(request: Request) -> Request:
    """The request, with the chosen tokens' log-probabilities kept."""
    record = replace(request.recipe.record, log_probabilities=0)
    return replace(request, recipe=replace(request.recipe, record=record))


def _first_token_at(call: Call) -> float | None:
    return min((collector.first_token_at for collector in call.collectors if collector.first_token_at), default=None)
