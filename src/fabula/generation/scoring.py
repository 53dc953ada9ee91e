"""Log-probabilities of texts that exist: one pass over each, in the engine that generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fabula.decoding.recipe import Limits, Recipe, Record
from fabula.engine.request import Request
from fabula.generation.results.collector import Collector
from fabula.processors.processor import LogitsProcessorList


def score_found(model: Any, requests: Sequence[Request], collectors: Sequence[Collector], top: int) -> None:
    """Gives the steps of a search's results their log-probabilities, which are known only when these are."""
    found = [
        (request, collector, row)
        for request, collector in zip(requests, collectors, strict=True)
        for row in range(len(collector.steps))
        if collector.hypotheses[row] is not None
    ]
    asked = [_scoring(request, collector.tokens(row), top) for request, collector, row in found]
    model.engine.run(asked)
    for (request, collector, row), scored in zip(found, asked, strict=True):
        if scored.sink.error is not None:
            raise scored.sink.error
        behind = len(request.prompt) - 1
        chances, best = scored.sink.prompt.log_probabilities[behind:].tolist(), scored.sink.prompt.top[behind:]
        collector.steps[row] = [
            replace(step, log_probability=chance, top=best[place] if best else ())
            for place, (step, chance) in enumerate(zip(collector.steps[row], chances, strict=True))
        ]


def _scoring(request: Request, new: np.ndarray, top: int) -> Request:
    """What asks how likely the model finds the tokens of a request and new ones Int["N"], and the `top` at each."""
    whole = np.append(request.prompt, new).astype(np.int32)
    recipe = Recipe(LogitsProcessorList(), Limits(len(whole) + 1), record=Record(log_probabilities=top, prompt=True))
    return replace(request, prompt=whole, recipe=recipe, sink=Collector(1), rows=1, negative=None, past=None)
