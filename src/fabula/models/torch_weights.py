"""Stored weights become tensors: one copy, in the type and on the device asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fabula.errors import ArgumentError
from fabula.quant.formats import StoredTensor

CHUNK = 1 << 22  # weights dequantized at a time

_SAME = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def torch_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The floating-point type of this name; raises ArgumentError for any that models do not compute in."""
    found = dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype).removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or found not in _SAME.values():
        raise ArgumentError(f"`dtype` must be float32, bfloat16 or float16, got {dtype!r}. Use one of them.")
    return found


def to_tensor(stored: StoredTensor, dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
    """The weights as a tensor of their own memory, in the shape that the checkpoint's layer keeps."""
    out = torch.empty(stored.shape, dtype=dtype, device=device)
    if _SAME.get(stored.format) == dtype and out.device.type == "cpu":
        out.view(-1).view(torch.uint8).numpy()[:] = stored.data
    else:
        _convert(stored, out)
    return out.t().contiguous() if stored.transposed else out


def _convert(stored: StoredTensor, out: torch.Tensor) -> None:
    """Writes the weights to `out`, a few rows at a time."""
    if len(stored.shape) < 2:
        out.copy_(torch.tensor(stored.dequantize()))
        return
    step = max(1, CHUNK // stored.shape[1])
    for row in range(0, stored.shape[0], step):
        end = min(row + step, stored.shape[0])
        data = stored.data[row * stored.row_bytes : end * stored.row_bytes]
        part = replace(stored, shape=(end - row, *stored.shape[1:]), data=data)
        out[row:end] = torch.from_numpy(np.array(part.dequantize()))
