"""How far a download is, as whoever shows it is told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Progress = Callable[[int, int], None]  # bytes fetched so far, and of how many


def no_progress(done: int, total: int) -> None:
    """Says nothing."""


@contextmanager
def late_bar(name: str) -> Iterator[Progress]:
    """A bar on standard error, if that is a terminal and the work takes more than a second."""
    with tqdm(desc=name, unit="B", unit_scale=True, delay=1.0, file=sys.stderr, disable=not _shown()) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report


def _shown() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
