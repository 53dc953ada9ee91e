"""save_pretrained: a model as a directory that this library and transformers load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from fabula.errors import ArgumentError
from fabula.models.family import Family
from fabula.models.weights import find_tensor, placed_entries, served_by_another
from fabula.quant.convert import FLOATS, converted
from fabula.quant.formats import StoredTensor
from fabula.quant.safetensors import save_safetensors


def save_directory(directory: str | PathLike[str], model: Any, tensors: Mapping[str, StoredTensor]) -> None:
    """Writes config.json, generation_config.json and model.safetensors; packed weights are written as float32."""
    folder = Path(directory)
    if folder.is_file():
        raise ArgumentError(f"`save_directory` must be a directory, got the file {folder}.")
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    save_safetensors(folder / "model.safetensors", _Unpacked(model.family, tensors))


class _Unpacked(Mapping[str, StoredTensor]):
    """The weights that a family's table names, under its names, in floating point."""

    def __init__(self, family: Family, tensors: Mapping[str, StoredTensor]) -> None:
        self._family = family
        self._tensors = tensors
        self._entries = {
            entry.name: entry
            for _, _, entry in placed_entries(family)
            if not served_by_another(family, entry, tensors) and find_tensor(family, entry, tensors) is not None
        }

    def __getitem__(self, name: str) -> StoredTensor:
        tensor = find_tensor(self._family, self._entries[name], self._tensors)
        assert tensor is not None
        return tensor if tensor.format in FLOATS else converted(tensor, "F32")

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
