"""Which devices PyTorch can compute on here."""

from __future__ import annotations

import torch


def best_device() -> str:
    """The first GPU, or the CPU where there is none."""
    return "cuda" if torch.cuda.is_available() else "cpu"
