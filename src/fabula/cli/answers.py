"""A prompt's sequences with what was recorded of each: ids, log-probabilities, and why it ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fabula.engine.request import Request
from fabula.generation.generate import prepare, run


@dataclass(frozen=True, slots=True)
class Answer:
    """One sequence."""

    ids: list[int]  # new tokens
    log_probabilities: list[float | None]  # of each, by the raw logits
    finish_reason: str | None


def answers(model: Any, ids: list[int], settings: dict[str, Any], watch: Any) -> list[Answer]:
    """All sequences that the settings ask for; `watch` is a streamer where there is only one."""
    single = (settings.get("num_return_sequences") or 1) == 1
    streamer = watch if single else None
    call = prepare(model, [ids], None, streamer, dict(settings))
    run(model, replace(call, requests=[_recorded(request) for request in call.requests]), streamer)
    return [
        Answer([step.token for step in steps], [step.log_probability for step in steps], reason)
        for collector in call.collectors
        for steps, reason in zip(collector.steps, collector.reasons, strict=True)
    ]


def _recorded(request: Request) -> Request:
    """The request, with the chosen tokens' log-probabilities kept."""
    record = replace(request.recipe.record, log_probabilities=0)
    return replace(request, recipe=replace(request.recipe, record=record))
