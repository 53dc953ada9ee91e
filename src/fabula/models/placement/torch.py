"""Which devices PyTorch can compute on here."""

from __future__ import annotations

import torch

from fabula.errors import ArgumentError


def best_device() -> str:
    """The first GPU, or the CPU where there is none."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def free_memory() -> dict[str, int]:
    """Bytes by GPU that are free, or that PyTorch holds without using them."""
    return {
        f"cuda:{index}": torch.cuda.mem_get_info(index)[0]
        + torch.cuda.memory_reserved(index)
        - torch.cuda.memory_allocated(index)
        for index in range(torch.cuda.device_count())
    }


def check_device(device: str) -> None:
    """Raises ArgumentError for a device that PyTorch cannot compute on here."""
    try:
        torch.empty(1, device=device)
    except (AssertionError, RuntimeError) as error:  # NotImplementedError is a RuntimeError
        raise ArgumentError(
            f"`device_map` must name a device that PyTorch finds here, got {device!r}. Use 'auto' or 'cpu'."
        ) from error
