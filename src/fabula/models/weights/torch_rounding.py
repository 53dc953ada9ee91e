"""Weights rounded where they lie: the numbers that packing on load leaves, by PyTorch on any device."""

from __future__ import annotations

import torch

from fabula.kernels.program import Layout

GROUP = 32  # weights that share a scale


def rounded_rows(layout: Layout, weights: torch.Tensor) -> torch.Tensor:
    """Float32["rows columns"] as it is after packing to 4 or 8 bits: bit for bit what `kernels.plain.rounded_to` says.

    Every operation is one that rounds once, whatever the device: no fused products, no quotient by a constant.
    """
    rows, columns = weights.shape
    padded = torch.nn.functional.pad(weights, (0, -columns % GROUP)).view(rows, -1, GROUP)
    coded = _eight_bits(padded) if layout == Layout.CODE8 else _four_bits(padded)
    return coded.view(rows, -1)[:, :columns]


def _eight_bits(groups: torch.Tensor) -> torch.Tensor:
    scale = _half(_quotient(groups.abs().amax(-1, keepdim=True), 127))
    return (groups * _inverse(scale)).round_().clamp_(-127, 127) * scale


def _four_bits(groups: torch.Tensor) -> torch.Tensor:
    low = _half(groups.amin(-1, keepdim=True))
    scale = _half(_quotient(groups.amax(-1, keepdim=True) - low, 15))
    return ((groups - low) * _inverse(scale)).round_().clamp_(0, 15) * scale + low


def _half(x: torch.Tensor) -> torch.Tensor:
    return x.half().float()


def _quotient(x: torch.Tensor, divisor: int) -> torch.Tensor:
    """x / divisor; by a number PyTorch would multiply by its inverse on a GPU."""
    return x / torch.full_like(x, divisor)


def _inverse(scale: torch.Tensor) -> torch.Tensor:
    """1 / scale, and 0 where there is none."""
    return torch.where(scale > 0, torch.ones_like(scale) / scale, 0.0)
