"""Where a generation_config.json is found, and how settings become its text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import huggingface_hub

from fabula.errors import ArgumentError, DownloadError, ModelFileError

__all__ = ["FILE_NAME", "json_text", "locate", "read_settings"]

FILE_NAME = "generation_config.json"


def locate(source: str | PathLike[str], name: str, subfolder: str = "", **download: Any) -> Path:
    """The path of the file `name` of a directory or of a hub id; `source` may also be the file itself.

    `download` goes to huggingface_hub. Raises ModelFileError, DownloadError.
    """
    place = Path(source)
    if place.is_file():
        return place
    if place.is_dir():
        path = place / subfolder / name
        if not path.is_file():
            raise ModelFileError(f"`{source}` must hold {name}, got a directory without it. Save a config there first.")
        return path
    try:
        return Path(huggingface_hub.hf_hub_download(str(source), name, subfolder=subfolder or None, **download))
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        message = f"`{source}` must be a directory, a file or a hub id with {name}, got: {reason}. Check the name."
        raise DownloadError(message) from error


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in the file. Raises ModelFileError where it is not a JSON object."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"`{path}` must be JSON in UTF-8, got: {error}. Fetch or write it again.") from error
    if not isinstance(settings, dict):
        raise ModelFileError(f"`{path}` must hold a JSON object, got {type(settings).__name__}. Write it again.")
    return settings


def json_text(settings: Mapping[str, Any]) -> str:
    """The settings as JSON, names sorted, as generation_config.json holds them."""
    plain = {str(name): _plain(str(name), value) for name, value in settings.items()}
    return json.dumps(plain, indent=2, sort_keys=True) + "\n"


def _plain(name: str, value: Any) -> Any:
    """`value` in JSON's types; dictionaries' keys become texts."""
    if isinstance(value, Mapping):
        return {str(key): _plain(name, one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(name, one) for one in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(name, value.to_dict() if hasattr(value, "to_dict") else asdict(value))
    if value is None or isinstance(value, str | int | float):
        return value
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays, tensors
        return _plain(name, value.tolist())
    if type(value).__name__ == "dtype":
        return str(value).rpartition(".")[2]
    raise ArgumentError(f"`{name}` must be plain data to be written as JSON, got {value!r}. Unset it first.")
