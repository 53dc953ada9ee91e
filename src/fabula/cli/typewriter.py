"""A streamer that writes an answer as it comes, and remembers its text, its ids and when they came."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol, TextIO

import numpy as np

from fabula.cli.timings import timings


class Pieces(Protocol):
    """Token ids in, text out: never half a character."""

    def put(self, token_id: int) -> str: ...

    def end(self) -> str: ...


class Typewriter:
    """One row's answer. What may be the start of a stop string is held back until it is not, or cut at the end."""

    def __init__(self, pieces: Pieces, out: TextIO | None, stop_strings: Sequence[str] = ()) -> None:
        self.text = ""  # all of it so far, written or held back
        self.ids: list[int] = []  # new tokens
        self.arrivals: list[float] = []  # time.perf_counter() of each
        self.prompt_tokens = 0
        self.started = time.perf_counter()
        self._pieces = pieces
        self._out = out
        self._stop_strings = tuple(stop_strings)
        self._written = 0
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        """The prompt first, then new tokens."""
        ids = np.asarray(value).reshape(-1)
        if not self._prompt_seen:
            self._prompt_seen = True
            self.prompt_tokens = len(ids)
            return
        for token in ids.tolist():
            self.ids.append(token)
            self.arrivals.append(time.perf_counter())
            self.text += self._pieces.put(token)
        self._write(len(self.text) - held_back(self.text, self._stop_strings))

    def end(self) -> None:
        """No more tokens: writes what was held back, up to a stop string."""
        self.text += self._pieces.end()
        self.text = cut(self.text, self._stop_strings)
        self._write(len(self.text))

    @property
    def timings(self) -> dict[str, float | int]:
        """How long prompt and answer took so far."""
        first, last = (self.arrivals[0], self.arrivals[-1]) if self.arrivals else (None, time.perf_counter())
        return timings(self.prompt_tokens, self.started, first, len(self.ids), last)

    def _write(self, end: int) -> None:
        if self._out is not None and end > self._written:
            self._out.write(self.text[self._written : end])
            self._out.flush()
            self._written = end


def held_back(text: str, stop_strings: Sequence[str]) -> int:
    """How many characters at the end are, or may become, a stop string and what follows it."""
    kept = cut(text, stop_strings)
    starts = (
        length
        for stop in stop_strings
        for length in range(min(len(stop) - 1, len(kept)), 0, -1)
        if kept.endswith(stop[:length])
    )
    return len(text) - len(kept) + max(starts, default=0)


def cut(text: str, stop_strings: Sequence[str]) -> str:
    """The text up to the first stop string in it."""
    places = [place for stop in stop_strings if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text
