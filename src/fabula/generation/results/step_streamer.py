"""Several rows for a streamer that was written for transformers: a token of each row a step, in one array."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from fabula.generation.results.streamers import BaseStreamer

__all__ = ["StepStreamer"]


class StepStreamer(BaseStreamer):
    """Gives another streamer the prompts [R, L] at once, then Int["R"] a step, as transformers' loop does.

    A step waits until each row that goes on has its token; rows that have ended have padding.
    """

    takes_rows = True

    def __init__(self, streamer: Any, rows: int, padding: int) -> None:
        self._streamer, self._padding = streamer, padding
        self._waiting: list[deque[int]] = [deque() for _ in range(rows)]
        self._ended = [False] * rows

    def put(self, value: Any, row: int | None = None) -> None:
        """The prompts of all rows, or a row's next tokens."""
        if row is None:
            self._streamer.put(value)
            return
        self._waiting[row].extend(value)
        self._give()

    def end_row(self, row: int) -> None:
        """Nothing more comes from a row."""
        self._ended[row] = True
        self._give()

    def end(self) -> None:
        """Nothing more comes."""
        self._streamer.end()

    def fail(self, error: BaseException) -> None:
        """The run ended with an error."""
        tell = getattr(self._streamer, "fail", None)
        if tell is None:
            self._streamer.end()
        else:
            tell(error)

    def _give(self) -> None:
        while any(self._waiting) and all(map(_is_ready, self._waiting, self._ended)):
            step = [tokens.popleft() if tokens else self._padding for tokens in self._waiting]
            self._streamer.put(np.array(step, np.int64))


def _is_ready(waiting: Sequence[int], ended: bool) -> bool:
    return bool(waiting) or ended
