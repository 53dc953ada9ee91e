"""save_pretrained: a model as a directory that this library and transformers load."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from fabula.errors import ArgumentError, NotSupportedError, UnknownArgumentError
from fabula.models.families.config import ModelConfig
from fabula.models.families.family import Family
from fabula.models.weights.table import all_entries, find_tensor, served_by_another
from fabula.quant.convert import FLOATS, converted
from fabula.quant.formats import StoredTensor
from fabula.quant.lazy import LazyTensors
from fabula.quant.safetensors import save_safetensors

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SATISFIED = {"safe_serialization": True, "is_main_process": True, "push_to_hub": False}  # what is done anyway


def save_directory(directory: str | PathLike[str], model: Any, tensors: Mapping[str, StoredTensor]) -> None:
    """Writes config.json, generation_config.json and model.safetensors; packed weights are written as float32."""
    folder = made_folder(directory)
    weights = dict(_Unpacked(model.family, tensors))
    tied = model.family.weights()["head"].name not in weights
    values = {**model.config.to_dict(), "dtype": _dtype(weights), "tie_word_embeddings": tied}
    values.pop("torch_dtype", None)
    model.generation_config.save_pretrained(folder)
    ModelConfig.from_dict(values).save_pretrained(folder)
    partial = folder / "model.safetensors.partial"  # the model may be mapped from the file that this replaces
    save_safetensors(partial, weights)
    partial.replace(folder / "model.safetensors")


def made_folder(directory: str | PathLike[str]) -> Path:
    """The directory, made where it is absent. Raises ArgumentError where it cannot be."""
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"`save_directory` must be a directory to write to, got {folder} ({error}).") from error
    return folder


def refuse_settings(settings: Mapping[str, Any]) -> None:
    """Raises for arguments of transformers' save_pretrained that ask for something else than what is done."""
    for name, value in settings.items():
        if name not in _SATISFIED and name not in ("max_shard_size", "state_dict", "variant", "token", "save_function"):
            raise UnknownArgumentError(f"save_pretrained() has no argument `{name}`.")
        if value is not None and value != _SATISFIED.get(name):
            raise NotSupportedError(
                f"`{name}={value!r}` is not supported: one model.safetensors is written to the directory."
            )


def _dtype(weights: Mapping[str, StoredTensor]) -> str:
    """What the matrices are; float32 where they are of several types."""
    formats = {tensor.format for tensor in weights.values() if len(tensor.shape) > 1}
    return DTYPES[formats.pop()] if len(formats) == 1 else "float32"


class _Unpacked(LazyTensors):
    """The weights that a family's table names, under its names, in floating point."""

    def __init__(self, family: Family, tensors: Mapping[str, StoredTensor]) -> None:
        self._tensors = tensors
        self._entries = {
            entry.name: (stack, entry)
            for stack, entry in all_entries(family)
            if not served_by_another(stack, entry, tensors) and find_tensor(stack, entry, tensors) is not None
        }
        super().__init__(self._entries)

    def __getitem__(self, name: str) -> StoredTensor:
        tensor = find_tensor(*self._entries[name], self._tensors)
        assert tensor is not None
        return tensor if tensor.format in FLOATS else converted(tensor, "F32")
