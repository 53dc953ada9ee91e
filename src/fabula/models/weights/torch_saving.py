"""Writes a PyTorch model as a directory that transformers reads too: weights, configuration, generation settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fabula.models.families.config import ModelConfig
from fabula.models.weights.saving import made_folder


def save_model(model: Any, directory: str | Path) -> None:
    """Writes model.safetensors, config.json and generation_config.json to a directory, made where it is absent."""
    folder = made_folder(directory)
    kept, tied = distinct(model.state_dict())
    values = {**model.config.to_dict(), "dtype": str(model.dtype).removeprefix("torch.")}
    model.generation_config.save_pretrained(folder)
    tied_head = model.family.weights()["head"].name in tied
    ModelConfig.from_dict({**values, "tie_word_embeddings": tied_head}).save_pretrained(folder)
    partial = folder / "model.safetensors.partial"  # another process may have mapped the file that this replaces
    save_file(kept, partial, metadata={"format": "pt"})
    partial.replace(folder / "model.safetensors")


def distinct(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The tensors with each memory once, under its first name, and the names that were left out."""
    kept: dict[str, torch.Tensor] = {}
    known: set[int] = set()
    for name, tensor in state.items():
        if tensor.data_ptr() not in known:
            known.add(tensor.data_ptr())
            kept[name] = tensor.detach().cpu().contiguous()
    return kept, tuple(name for name in state if name not in kept)
