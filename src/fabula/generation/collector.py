"""Gathers a request's rows as they are chosen, and passes the tokens of a streamed call on."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fabula.engine.request import FinishReason, Step


class Collector:
    """The sink behind generate(): every row's steps, why each ended, or the error that ended them all."""

    def __init__(self, rows: int, streamer: Any = None) -> None:
        self.steps: list[list[Step]] = [[] for _ in range(rows)]
        self.reasons: list[FinishReason | None] = [None] * rows
        self.error: BaseException | None = None
        self.first_token_at: float | None = None  # time.monotonic()
        self._streamer = streamer

    def put(self, row: int, step: Step) -> None:
        if self.first_token_at is None:
            self.first_token_at = time.monotonic()
        self.steps[row].append(step)
        if self._streamer is not None:
            self._streamer.put(np.array([step.token], np.int64))

    def end(self, row: int, reason: FinishReason) -> None:
        self.reasons[row] = reason

    def fail(self, error: BaseException) -> None:
        self.error = error

    def tokens(self, row: int) -> np.ndarray:
        """The row's new tokens, int64."""
        return np.array([step.token for step in self.steps[row]], np.int64)
