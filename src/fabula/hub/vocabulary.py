"""A tokenizer beside a model: its vocabulary must fit into the model's."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from fabula.errors import ModelFileError
from fabula.hub.json_text import read_object


def check_vocabulary(tokenizer: Any, vocabulary: int, source: str | PathLike[str]) -> None:
    """Raises ModelFileError where the tokenizer has more tokens than the model has ids.

    Tokens that were added to the vocabulary do not count: real models name a few that they have no row for, and a
    prompt with one of them is refused when it is used.
    """
    if tokenizer.vocab_size > vocabulary:
        raise ModelFileError(
            f"tokenizer.json of {source} must have at most {vocabulary} tokens, `vocab_size` of config.json, "
            f"got {tokenizer.vocab_size}. Fetch the tokenizer that belongs to the model."
        )


def directory_vocabulary(source: Any) -> int | None:
    """`vocab_size` of the config.json in a directory; None where it has none, or is no directory."""
    path = Path(source) / "config.json"
    if not path.is_file():
        return None
    values = read_object(path)
    text = values.get("text_config")
    found = values.get("vocab_size", text.get("vocab_size") if isinstance(text, Mapping) else None)
    return found if isinstance(found, int) and not isinstance(found, bool) else None
