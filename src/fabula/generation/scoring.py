"""Log-probabilities of texts that exist: one pass over each, in the engine that generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fabula.decoding.recipe import Limits, Recipe, Record
from fabula.engine.request import PromptScores, Request
from fabula.generation.results.collector import Collector
from fabula.processors.processor import LogitsProcessorList


def score_rows(model: Any, rows: Sequence[np.ndarray], top: int = 0) -> list[PromptScores]:
    """For each row Int["L"] how likely the model finds its tokens but the first, and the `top` likeliest at each."""
    requests = []
    for row in rows:
        recipe = Recipe(LogitsProcessorList(), Limits(len(row) + 1), record=Record(log_probabilities=top, prompt=True))
        requests.append(Request(row.astype(np.int32), recipe, Collector(1)))
    model.engine.run(requests)
    for request in requests:
        if request.sink.error is not None:
            raise request.sink.error
    return [request.sink.prompt for request in requests]


def score_found(model: Any, prompts: Sequence[np.ndarray], collectors: Sequence[Collector], top: int) -> None:
    """Gives the steps of a search's results their log-probabilities, which are known only when these are."""
    found = [
        (prompt, collector, row)
        for prompt, collector in zip(prompts, collectors, strict=True)
        for row in range(len(collector.steps))
        if collector.hypotheses[row] is not None
    ]
    scores = score_rows(model, [np.append(prompt, collector.tokens(row)) for prompt, collector, row in found], top)
    for (prompt, collector, row), score in zip(found, scores, strict=True):
        chances, best = score.log_probabilities[len(prompt) - 1 :].tolist(), score.top[len(prompt) - 1 :]
        collector.steps[row] = [
            replace(step, log_probability=chance, top=best[place] if best else ())
            for place, (step, chance) in enumerate(zip(collector.steps[row], chances, strict=True))
        ]
