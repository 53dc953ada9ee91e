"""Log-probabilities of a call's tokens, as an output shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fabula import arrays
from fabula.generation.results.collector import Collector


def likelihoods_of_new_tokens(collectors: Sequence[Collector], like: Any, top: bool) -> dict[str, Any]:
    """The output's fields for the new tokens; `top`: those of the likeliest ones too."""
    rows = [steps for collector in collectors for steps in collector.steps]
    values = np.zeros((len(rows), max(len(steps) for steps in rows)), np.float32)
    for place, steps in enumerate(rows):
        values[place, : len(steps)] = [step.log_probability for step in steps]
    shown = {"log_probabilities": arrays.of(like).asarray(values, "float32", like=like)}
    return shown | ({"top_log_probabilities": [[step.top for step in steps] for steps in rows]} if top else {})


def likelihoods_of_prompts(collectors: Sequence[Collector], like: Any, top: bool) -> dict[str, Any]:
    """The output's fields for the prompts' own tokens."""
    xp, scores = arrays.of(like), [collector.prompt for collector in collectors if collector.prompt is not None]
    shown: dict[str, Any] = {
        "prompt_log_probabilities": [xp.asarray(one.log_probabilities, "float32", like=like) for one in scores]
    }
    return shown | ({"prompt_top_log_probabilities": [list(one.top) for one in scores]} if top else {})
