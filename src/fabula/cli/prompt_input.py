"""Texts that a command is given: as an argument, from a file, or through a pipe."""

from __future__ import annotations

import sys
from pathlib import Path

from fabula.cli.terminal import is_terminal
from fabula.errors import ArgumentError


def read_text(given: str | None, what: str) -> str:
    """The text itself, or standard input's where it is `-` or absent and something is piped in."""
    if given is not None and given != "-":
        return given
    if given is None and is_terminal(sys.stdin):
        raise ArgumentError(f"a {what} must be given, as an argument or through a pipe ('-' reads what you type).")
    return _standard_input()


def read_file(given: str | None, what: str) -> str:
    """The text of the file, or standard input's where it is `-` or absent and something is piped in."""
    if given is None or given == "-":
        return read_text(given, what)
    try:
        return Path(given).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ArgumentError(
            f"{given} must be UTF-8 text, got a byte {error.object[error.start]:#04x} at {error.start}."
        ) from error
    except OSError as error:
        raise ArgumentError(f"{given} must be a file that can be read: {error.strerror}.") from error


def _standard_input() -> str:
    """All of it, as UTF-8 whatever the locale says."""
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArgumentError(
            f"standard input must be UTF-8 text, got a byte {data[error.start]:#04x} at {error.start}."
        ) from error
