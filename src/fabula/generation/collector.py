"""Gathers a request's rows as they are chosen, and passes the tokens of a streamed call on."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fabula.engine.request import FinishReason, Step


class Collector:
    """The sink behind generate(): every row's steps, why each ended, or the error that ended them all."""

    def __init__(self, rows: int, streamer: Any = None, first_row: int | None = None) -> None:
        """`first_row`: what the streamer calls the first of these rows; None for a streamer of one row."""
        self.steps: list[list[Step]] = [[] for _ in range(rows)]
        self.reasons: list[FinishReason | None] = [None] * rows
        self.error: BaseException | None = None
        self.first_token_at: float | None = None  # time.monotonic()
        self._streamer = streamer
        self._first_row = first_row

    def put(self, row: int, step: Step) -> None:
        if self.first_token_at is None:
            self.first_token_at = time.monotonic()
        self.steps[row].append(step)
        if self._streamer is None:
            return
        if self._first_row is None:
            self._streamer.put(np.array([step.token], np.int64))
        else:
            self._streamer.put([step.token], row=self._first_row + row)

    def end(self, row: int, reason: FinishReason) -> None:
        self.reasons[row] = reason
        if self._streamer is not None and self._first_row is not None:
            self._streamer.end_row(self._first_row + row)

    def fail(self, error: BaseException) -> None:
        self.error = error

    def tokens(self, row: int) -> np.ndarray:
        """The row's new tokens, int64."""
        return np.array([step.token for step in self.steps[row]], np.int64)
