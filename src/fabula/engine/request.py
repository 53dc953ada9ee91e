"""A prompt that has been checked, and where its tokens go: nothing else reaches the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from fabula.decoding.recipe import Recipe

FinishReason = Literal["stop", "length", "time", "cancelled"]


@dataclass(frozen=True, slots=True)
class Step:
    """One token of one row, as a sink receives it."""

    token: int
    log_probability: float | None = None  # of the raw logits
    top: tuple[tuple[int, float], ...] = ()  # the most likely tokens and their log-probabilities
    scores: object = None  # Float["V"], if recorded
    logits: object = None  # Float["V"], if recorded


class Sink(Protocol):
    """Where a request's tokens go. Calls come from whichever thread runs the step."""

    def put(self, row: int, step: Step) -> None:
        """The next token of the request's row."""

    def end(self, row: int, reason: FinishReason) -> None:
        """The row's last call when all went well."""

    def fail(self, error: BaseException) -> None:
        """The request ended without a result: its only further call."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and the rows that continue it."""

    prompt: np.ndarray  # Int["P"]: int32, P >= 1, ids within the vocabulary, P < recipe.limits.max_length
    recipe: Recipe
    sink: Sink
    seed: int = 0  # 64 bits
    stream: int = 0  # of the first row; row k draws from stream + k
    rows: int = 1
    salt: bytes = b""  # cached prefixes are shared under one salt only
