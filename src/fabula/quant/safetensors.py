"""Writes weights in the safetensors format, through its own library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from fabula.errors import NotSupportedError
from fabula.quant.formats import FORMATS, StoredTensor

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def save_safetensors(
    path: str | Path, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes the weights under their names; packed ones have no place in the format and raise NotSupportedError."""
    kept = {name: _ready(tensors[name]) for name in tensors}  # alive until the library has read their memory
    header = {"format": "pt", **(metadata or {})}  # what transformers looks for
    safetensors.serialize_file({name: _entry(tensor) for name, tensor in kept.items()}, str(path), header)


def _ready(tensor: StoredTensor) -> StoredTensor:
    """In the shape that its name stands for."""
    if tensor.format not in DTYPES:
        raise NotSupportedError(
            f"tensor {tensor.name!r} must be {', '.join(DTYPES)} to be saved as safetensors, got {tensor.format}. "
            "Load the model with dtype= to decode it first."
        )
    weights = tensor.data.view(FORMATS[tensor.format].layout).reshape(tensor.shape)
    if tensor.transposed:
        weights = weights.T
    data = np.ascontiguousarray(weights).reshape(-1).view(np.uint8)
    return StoredTensor(tensor.name, tensor.format, weights.shape, data)


def _entry(tensor: StoredTensor) -> Any:
    """The library's description of a tensor: an object since 0.8, a dictionary with the bytes before."""
    dtype, shape = DTYPES[tensor.format], list(tensor.shape)
    specification = getattr(safetensors, "TensorSpec", None)
    if specification is None:
        return {"dtype": dtype, "shape": shape, "data": tensor.data.tobytes()}
    return specification(dtype=dtype, shape=shape, data_ptr=tensor.data.ctypes.data, data_len=tensor.data.nbytes)
