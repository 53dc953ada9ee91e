"""A source, opened: what every loader of models reads, whatever kind of file it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabula.quant.formats import StoredTensor
from fabula.text.files import TokenizerFiles


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Nothing here is decoded yet; the weights are views of the mapped files."""

    source: str  # as the user named it
    path: Path  # the .gguf file, or the directory
    config: dict[str, Any]  # what config.json holds, or would hold
    generation_config: dict[str, Any] | None  # likewise; None: the directory has none
    tensors: Mapping[str, StoredTensor]  # by Hugging Face's names; each made when it is asked for
    tokenizer: TokenizerFiles | None  # None: the source has none
    metadata: Mapping[str, Any]  # all keys of a GGUF file; of a directory, none
