"""Gathers a request's rows as they are chosen, and passes the tokens of a streamed call on."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fabula.cache.kept import KeptRow
from fabula.decoding.strategy import Hypothesis
from fabula.engine.request import FinishReason, Kept, PromptScores, Step


class Collector:
    """The sink behind generate(): every row's steps, why each ended, or the error that ended them all."""

    def __init__(self, rows: int, streamer: Any = None, first_row: int | None = None) -> None:
        """`first_row`: what the streamer calls the first of these rows; None for a streamer of one row."""
        self.steps: list[list[Step]] = [[] for _ in range(rows)]
        self.reasons: list[FinishReason | None] = [None] * rows
        self.turns: list[Kept] = []  # what was kept of a search's turns
        self.hypotheses: list[Hypothesis | None] = [None] * rows  # a search's results
        self.prompt: PromptScores | None = None
        self.pasts: list[KeptRow | None] = [None] * rows  # what a later call may go on from
        self.error: BaseException | None = None
        self.first_token_at: float | None = None  # time.monotonic()
        self.streams = streamer is not None  # whether each token is wanted as it comes
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

    def turned(self, kept: Kept) -> None:
        self.turns.append(kept)

    def found(self, row: int, hypothesis: Hypothesis) -> None:
        self.hypotheses[row] = hypothesis

    def scored(self, prompt: PromptScores) -> None:
        self.prompt = prompt

    def kept(self, row: int, kept: KeptRow) -> None:
        self.pasts[row] = kept

    def fail(self, error: BaseException) -> None:
        self.error = error

    def tokens(self, row: int) -> np.ndarray:
        """The row's new tokens, int64."""
        return np.array([step.token for step in self.steps[row]], np.int64)
