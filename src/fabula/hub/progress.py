"""How far a download is, as whoever shows it is told."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # bytes fetched so far, and of how many


def no_progress(done: int, total: int) -> None:
    """Says nothing."""
