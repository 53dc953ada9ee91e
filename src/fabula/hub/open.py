"""Opens a source by what it is: a directory, a .gguf file, the default model's name, or a hub id.

In this order: what lies on the disk wins; then the default model's names; what is left is a hub id, "name" or
"organization/name", or a .gguf file within such a repository, "organization/name/file.gguf".
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from fabula.errors import ArgumentError, ModelFileError
from fabula.hub.checkpoint import Checkpoint
from fabula.hub.default_model import fetch_default_model, is_default_model
from fabula.hub.files import (
    CONFIG_FILES,
    PICKLE_ADVICE,
    PICKLES,
    TOKENIZER_FILES,
    WEIGHT_FILES,
    read_config,
    read_generation_config,
    read_tokenizer,
    read_weights,
)
from fabula.hub.gguf import GgufFile, read_gguf
from fabula.hub.gguf_config import architecture, generation_config, model_config
from fabula.hub.gguf_names import GgufTensors
from fabula.hub.progress import Progress, no_progress
from fabula.hub.source_options import SourceOptions
from fabula.text.files import TokenizerFiles

Source = str | PathLike[str]
PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"  # of a hub id, by the hub's own rule
REPOSITORY = re.compile(rf"{PART}(?:/{PART})?")
_SOURCES = "a directory, a .gguf file, a hub id or a default model's name"
REPOSITORY_FILE = re.compile(rf"({PART}/{PART})/(.+\.gguf)")


def open_checkpoint(
    source: Source,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    progress: Progress = no_progress,
) -> Checkpoint:
    """The checkpoint that `source` names; raises ModelFileError or DownloadError.

    `progress` is told of the bytes fetched where the default model is fetched; the hub shows its own bars.
    """
    options = SourceOptions(revision, token, cache_dir, local_files_only, progress)
    path = locate(source, (*CONFIG_FILES, *TOKENIZER_FILES, *WEIGHT_FILES), options)
    return _open_directory(path, str(source)) if path.is_dir() else _open_gguf(path, str(source))


def open_config(
    source: Source,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> dict[str, Any]:
    """What its config.json holds or would hold; of a hub id nothing else is fetched."""
    path = locate(source, CONFIG_FILES, SourceOptions(revision, token, cache_dir, local_files_only))
    return read_config(path) if path.is_dir() else model_config(read_gguf(path))


def open_tokenizer(
    source: Source,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> TokenizerFiles:
    """What its tokenizer is built from; a directory needs nothing else, and of a hub id nothing else is fetched."""
    path = locate(source, TOKENIZER_FILES, SourceOptions(revision, token, cache_dir, local_files_only))
    return read_tokenizer(path, str(source)) if path.is_dir() else _gguf_tokenizer(read_gguf(path), str(source))


def locate(source: Source, patterns: Sequence[str], options: SourceOptions) -> Path:
    """The directory or .gguf file that the source names, on this machine; fetched if it is not here yet."""
    if not isinstance(source, (str, PathLike)):
        raise ArgumentError(f"the source must be {_SOURCES}, got {source!r}. Name one.")
    name, path = str(source), Path(source)
    if name and path.is_dir():
        return _only_gguf(path) or path
    if name and path.exists():
        return _model_file(path)
    if is_default_model(name):
        return fetch_default_model(
            options.progress, cache_dir=options.cache_dir, local_files_only=options.local_files_only
        )
    if match := REPOSITORY_FILE.fullmatch(name):
        return _snapshot().fetch_file(*match.groups(), options)
    if REPOSITORY.fullmatch(name) and not name.endswith(".gguf"):
        return _snapshot().fetch_snapshot(name, patterns, options)
    raise ModelFileError(f"{name or 'the source'} must be {_SOURCES}, and is none. Check the path.")


def _snapshot() -> Any:
    """The part that needs huggingface_hub, whose import a local model should not wait for."""
    return importlib.import_module("fabula.hub.snapshot")


def _only_gguf(directory: Path) -> Path | None:
    """The .gguf file of a directory that holds one and no other model."""
    if (directory / CONFIG_FILES[0]).exists() or (directory / TOKENIZER_FILES[0]).exists():
        return None
    files = list(directory.glob("*.gguf"))
    return files[0] if len(files) == 1 else None


def _model_file(path: Path) -> Path:
    if any(path.match(pattern) for pattern in PICKLES):
        raise ModelFileError(f"{path} {PICKLE_ADVICE}")
    if path.suffix == ".safetensors":
        raise ModelFileError(f"{path} must lie in a directory with its config.json. Name the directory.")
    return path  # whatever it is called: its first bytes say whether it is GGUF


def _open_directory(path: Path, source: str) -> Checkpoint:
    config, weights = read_config(path), read_weights(path)
    return Checkpoint(
        source=source,
        path=path,
        config=config,
        generation_config=read_generation_config(path),
        tensors=weights,
        tokenizer=read_tokenizer(path, source) if (path / TOKENIZER_FILES[0]).is_file() else None,
        metadata={},
    )


def _open_gguf(path: Path, source: str) -> Checkpoint:
    file = read_gguf(path)
    config = model_config(file)
    return Checkpoint(
        source=source,
        path=path,
        config=config,
        generation_config=generation_config(config),
        tensors=GgufTensors(file, architecture(file), config),
        tokenizer=_gguf_tokenizer(file, source) if "tokenizer.ggml.tokens" in file.metadata else None,
        metadata=file.metadata,
    )


def _gguf_tokenizer(file: GgufFile, source: str) -> TokenizerFiles:
    metadata = {key: value for key, value in file.metadata.items() if key.startswith("tokenizer.")}
    if "tokenizer.ggml.tokens" not in metadata:
        raise ModelFileError(
            f"{file.path}: key 'tokenizer.ggml.tokens' must be there, and is not. Convert the model again."
        )
    template = metadata.get("tokenizer.chat_template")
    return TokenizerFiles(gguf=metadata, chat_template=template if isinstance(template, str) else None, source=source)
