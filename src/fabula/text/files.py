"""What a tokenizer is built from, already read: the text of a directory's files, or a GGUF file's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TokenizerFiles:
    """One of `tokenizer_json` and `gguf` is there; the rest refines it."""

    tokenizer_json: str | None = None  # the content of tokenizer.json, not its path
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)  # tokenizer_config.json
    gguf: Mapping[str, Any] | None = None  # the metadata whose keys start with "tokenizer."
    chat_template: str | None = None  # chat_template.jinja, or the GGUF file's own; wins over the config's
    special_tokens_map: Mapping[str, Any] | None = None  # special_tokens_map.json of older directories
    source: str = ""  # where they came from, as the user named it: for messages and `name_or_path`
