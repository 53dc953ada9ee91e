"""What a terminal is shown beyond plain text: colour where it is wanted, and a clean line where it is needed."""

from __future__ import annotations

import os
import sys
from typing import TextIO

BOLD, DIM, GREEN, CYAN = "1", "2", "32", "36"


def is_terminal(stream: TextIO) -> bool:
    """Whether a person reads the stream."""
    return stream.isatty()


def coloured(stream: TextIO) -> bool:
    """Whether colour may be written to the stream: a terminal, no NO_COLOR (no-color.org), not a dumb one."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, stream: TextIO) -> str:
    """The text in that style, plain where the stream takes no colour."""
    return f"\x1b[{style}m{text}\x1b[0m" if coloured(stream) else text


def note(text: str) -> None:
    """A line about what is going on, dim, on standard error: standard output holds results only."""
    print(styled(text, DIM, sys.stderr), file=sys.stderr, flush=True)
