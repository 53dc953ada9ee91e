"""The storage in PyTorch of each kind."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fabula.cache.kinds import DYNAMIC, CacheKind
from fabula.cache.torch import Device, TorchCache
from fabula.cache.torch_offloaded import OffloadedTorchCache
from fabula.cache.torch_quantized import QuantizedTorchCache


def new_torch_cache(
    kind: CacheKind,
    heads: Sequence[tuple[int, int]],
    blocks: int,
    dtype: torch.dtype,
    device: Device | Sequence[Device],
) -> TorchCache:
    """Storage of this kind; the rest is as `TorchCache` has it."""
    if kind.name == "quantized":
        return QuantizedTorchCache(heads, blocks, dtype, device, kind.bits, kind.group)
    made = OffloadedTorchCache if kind.name == "offloaded" else TorchCache
    return made(heads, blocks, dtype, device)


def kind_on(devices: Sequence[torch.device], kind: CacheKind) -> CacheKind:
    """The kind that serves where this one is asked for: what is offloaded from CPUs is where it would be anyway."""
    there = all(device.type == "cpu" for device in devices)
    return DYNAMIC if kind.name == "offloaded" and there else kind
