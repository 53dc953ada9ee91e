"""Stored weights become tensors: one copy, in the type and on the device asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from fabula.errors import ArgumentError
from fabula.models.weights.rounding import Rounding
from fabula.models.weights.torch_rounding import rounded_rows
from fabula.quant.convert import check_packable
from fabula.quant.formats import StoredTensor

CHUNK = 1 << 22  # weights dequantized, or rounded, at a time

_SAME = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def torch_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The floating-point type of this name; raises ArgumentError for any that models do not compute in."""
    found = dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype).removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or found not in _SAME.values():
        raise ArgumentError(f"`dtype` must be float32, bfloat16 or float16, got {dtype!r}. Use one of them.")
    return found


def to_tensor(
    stored: StoredTensor, dtype: torch.dtype, device: torch.device | str, rounding: Rounding | None = None
) -> torch.Tensor:
    """The weights as a tensor of their own memory, in the shape that the checkpoint's layer keeps.

    `rounding`: as they are after packing. Raises ArgumentError for numbers that cannot be packed.
    """
    out = torch.empty(stored.shape, dtype=dtype, device=device)
    if rounding is not None:
        check_packable(stored)
        _round(stored, out, rounding)
    elif _SAME.get(stored.format) == dtype and out.device.type == "cpu":
        out.view(-1).view(torch.uint8).numpy()[:] = stored.data
    else:
        for first, end, part in _parts(stored):
            out[first:end] = part.to(out.device)
    return out.t().contiguous() if stored.transposed else out


def _round(stored: StoredTensor, out: torch.Tensor, rounding: Rounding) -> None:
    """Writes the weights to `out` as they are after packing, a few rows, or of what is turned columns, at a time."""
    if not rounding.turned:
        for first, end, part in _parts(stored):
            out[first:end] = rounded_rows(rounding.layout, part.to(out.device).float())
        return
    whole = torch.cat([part.to(out.device) for _, _, part in _parts(stored)])
    step = max(1, CHUNK // stored.shape[0])
    for first in range(0, stored.shape[1], step):
        columns = whole[:, first : first + step].float().t().contiguous()
        out[:, first : first + step] = rounded_rows(rounding.layout, columns).t()


def _parts(stored: StoredTensor) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Rows [first, end) of the weights, on the CPU: floats in the type that they have, all others dequantized."""
    rows, kind = stored.shape[0], _SAME.get(stored.format)
    step = max(1, rows if len(stored.shape) == 1 else CHUNK // stored.shape[1])
    row_bytes = stored.data.nbytes // max(1, rows)
    for first in range(0, rows, step):
        end = min(first + step, rows)
        shape, data = (end - first, *stored.shape[1:]), stored.data[first * row_bytes : end * row_bytes]
        if kind is None:
            yield first, end, torch.from_numpy(np.array(replace(stored, shape=shape, data=data).dequantize()))
        else:
            yield first, end, torch.from_numpy(np.array(data)).view(kind).view(shape)
