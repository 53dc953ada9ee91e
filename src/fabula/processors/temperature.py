"""Temperature, and what else acts on every score alike: normalization and the removal of values that are no numbers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.processors.arguments import above_zero
from fabula.processors.processor import LogitsProcessor, column

__all__ = ["InfNanRemoveLogitsProcessor", "LogitNormalization", "TemperatureLogitsWarper"]

LARGEST = {  # by type
    "float16": float(np.finfo(np.float16).max),
    "bfloat16": (2 - 2**-7) * 2.0**127,
    "float32": float(np.finfo(np.float32).max),
    "float64": float(np.finfo(np.float64).max),
}


class TemperatureLogitsWarper(LogitsProcessor):
    """Scores divided by a temperature: above 1 makes the distribution flatter, below 1 steeper."""

    numbers: ClassVar[Mapping[str, float]] = {"temperature": 1.0}

    def __init__(self, temperature: float) -> None:
        self.temperature = above_zero("temperature", temperature, "For greedy decoding set do_sample=False.")

    def process(self, scores: Any, context: Context) -> Any:
        return scores / column(arrays.of(scores), self.temperature, "float32", scores)

    def stack_key(self) -> Hashable:
        return ()


class LogitNormalization(LogitsProcessor):
    """Scores as log-probabilities: their log-softmax."""

    def process(self, scores: Any, context: Context) -> Any:
        return arrays.of(scores).log_softmax(scores)

    def stack_key(self) -> Hashable:
        return ()


class InfNanRemoveLogitsProcessor(LogitsProcessor):
    """NaN as 0, infinities as the largest and smallest number of the scores' type."""

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        known = xp.where(xp.isnan(scores), 0.0, scores)
        largest = LARGEST[type_of(scores)]
        return xp.minimum(xp.maximum(known, -largest), largest)

    def stack_key(self) -> Hashable:
        return ()


def type_of(scores: Any) -> str:
    """The name of an array's type: "float32", whatever the framework."""
    return getattr(scores.dtype, "name", str(scores.dtype)).rpartition(".")[2]
