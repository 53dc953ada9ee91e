"""JSON from files that nobody vouches for: bounded in size and depth, finite numbers only, keys that occur once."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from fabula.errors import ModelFileError

MOST_BYTES = 64 << 20  # of a file of settings, or of a list of shards
MOST_DEPTH = 64  # of objects and lists within each other


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The file's text; raises ModelFileError if it is absent, larger than `most` bytes, or no UTF-8."""
    try:
        size = path.stat().st_size
        if size > most:
            raise ModelFileError(f"{path} must have at most {most} bytes, got {size}. Fetch it again.")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ModelFileError(f"{path} must be there, and is not. Fetch the whole model again.") from None
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path} must be UTF-8, got another byte at {error.start}. Fetch it again.") from None
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(f"{path} must be a readable file, got: {error}. Check its permissions.") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that the file holds."""
    return parse_object(read_text(path), str(path))


def parse_object(text: str, place: str) -> dict[str, Any]:
    """The JSON object in `text`; errors name `place` and the key."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = counts.most_common(1)[0][0]
            raise ModelFileError(f"{place}: key {twice!r:.60} must occur once, got it twice. Fetch the file again.")
        return members

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise _too_deep(place, "a key") from None
    except ModelFileError:
        raise
    except ValueError as error:
        raise ModelFileError(f"{place} must be JSON, got: {error!s:.200}. Fetch the file again.") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{place} must be a JSON object, got a {type(value).__name__}. Fetch the file again.")
    _check(value, place)
    return value


def _check(value: dict[str, Any], place: str) -> None:
    """Every number is finite, and nothing lies too deep. Without recursion: the depth is what is in doubt."""
    waiting: list[tuple[str, int, Any]] = [("", 0, value)]
    while waiting:
        key, depth, value = waiting.pop()
        if isinstance(value, float) and not math.isfinite(value):
            raise ModelFileError(
                f"{place}: key {key!r} must be a finite number, got {value}. Repair or fetch the file."
            )
        if not isinstance(value, dict | list):
            continue
        if depth == MOST_DEPTH:
            raise _too_deep(place, f"key {key[:60]!r}")
        members = value.items() if isinstance(value, dict) else enumerate(value)
        waiting += [
            (f"{key}.{name}" if key else str(name), depth + 1, member)
            for name, member in members
            if isinstance(member, dict | list | float)
        ]


def _too_deep(place: str, what: str) -> ModelFileError:
    return ModelFileError(
        f"{place}: {what} must lie within at most {MOST_DEPTH} objects and lists, got more. Fetch the file again."
    )
