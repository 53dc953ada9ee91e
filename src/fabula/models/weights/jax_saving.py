"""Writes a model in JAX as a directory that every framework and transformers read: weights, configuration, settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fabula.models.families.config import ModelConfig
from fabula.models.weights.saving import made_folder
from fabula.quant.formats import StoredTensor
from fabula.quant.safetensors import save_safetensors

_FORMATS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def save_model(model: Any, directory: str | Path) -> None:
    """Writes model.safetensors, config.json and generation_config.json to a directory, made where it is absent."""
    folder = made_folder(directory)
    weights = {name: _stored(name, np.asarray(array)) for name, array in model.named_weights()}
    tied = model.family.weights()["head"].name not in weights
    values = {**model.config.to_dict(), "dtype": str(model.dtype), "tie_word_embeddings": tied}
    values.pop("torch_dtype", None)
    model.generation_config.save_pretrained(folder)
    ModelConfig.from_dict(values).save_pretrained(folder)
    partial = folder / "model.safetensors.partial"  # another process may have mapped the file that this replaces
    save_safetensors(partial, weights)
    partial.replace(folder / "model.safetensors")


def _stored(name: str, array: np.ndarray) -> StoredTensor:
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return StoredTensor(name, _FORMATS[str(array.dtype)], array.shape, data)
