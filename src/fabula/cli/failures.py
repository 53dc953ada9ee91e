"""What a command's failure looks like from outside: one line on standard error, and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fabula.errors import (
    ArgumentError,
    CancelledError,
    DownloadError,
    FabulaError,
    MissingDependencyError,
    ModelFileError,
    NotSupportedError,
)

FAILED, USAGE, MODEL_FILE, MEMORY, INTERRUPTED, BROKEN_PIPE = 1, 2, 3, 4, 130, 141

# The first class that fits decides.
CODES: tuple[tuple[type[BaseException], int], ...] = (
    (KeyboardInterrupt, INTERRUPTED),
    (CancelledError, INTERRUPTED),
    (BrokenPipeError, BROKEN_PIPE),
    (MemoryError, MEMORY),
    (ModelFileError, MODEL_FILE),
    (DownloadError, MODEL_FILE),
    (ArgumentError, USAGE),
    (NotSupportedError, USAGE),
    (MissingDependencyError, USAGE),
)


@dataclass(slots=True)
class Outcome:
    """How a command ended."""

    code: int = 0


@contextmanager
def reported(debug: bool = False) -> Iterator[Outcome]:
    """Runs a command's body; an exception becomes a line and a code, with `debug` after its traceback."""
    outcome = Outcome()
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield outcome
            sys.stdout.flush()
        except SystemExit as exit_:  # argparse: --help, --version, or a usage error that it has printed
            outcome.code = exit_.code if isinstance(exit_.code, int) else USAGE
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exc()
            outcome.code = code_of(error)
            _report(error)


def code_of(error: BaseException) -> int:
    """The exit code that an exception stands for."""
    return next((code for kind, code in CODES if isinstance(error, kind)), FAILED)


def line_of(error: BaseException) -> str:
    """The exception in one line: its own words where it is ours, with its type where it is not."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    words = " ".join(str(error).split())
    if isinstance(error, FabulaError | OSError):
        return words or type(error).__name__
    if isinstance(error, MemoryError):
        return f"out of memory{': ' + words if words else ''}"
    return f"{type(error).__name__}: {words} (--debug shows where)"


def _report(error: BaseException) -> None:
    """Prints the line; a reader that has gone away gets nothing more."""
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    print(f"fabula: {line_of(error)}", file=sys.stderr)


def _show_warning(message: Any, category: Any, filename: Any, lineno: Any, file: Any = None, line: Any = None) -> None:
    """A warning in one line, without the place in the code that raised it."""
    print(f"fabula: warning: {' '.join(str(message).split())}", file=sys.stderr)
