"""A download's progress on standard error: a bar for a person, one line for a log."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from fabula.cli.terminal import is_terminal, note
from fabula.hub.progress import Progress


@contextmanager
def download_bar(name: str) -> Iterator[Progress]:
    """What a download reports to. Nothing is shown until the first report."""
    bars: list[tqdm] = []

    def report(done: int, total: int) -> None:
        if not bars:
            bars.append(_bar(name, total))
        bars[0].update(done - bars[0].n)

    try:
        yield report
    finally:
        for bar in bars:
            bar.close()


def _bar(name: str, total: int) -> tqdm:
    shown = is_terminal(sys.stderr)
    if not shown:
        note(f"fetching {name}, {total / 1e6:.0f} MB")
    return tqdm(total=total, desc=name, unit="B", unit_scale=True, file=sys.stderr, disable=not shown)
