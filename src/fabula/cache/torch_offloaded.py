"""Keys and values in the CPU's memory for a model elsewhere: a layer's come over when it attends."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fabula.cache.torch import Device, TorchCache, of_each


class OffloadedTorchCache(TorchCache):
    """The same blocks, stored on the CPU."""

    def __init__(
        self, heads: Sequence[tuple[int, int]], blocks: int, dtype: torch.dtype, device: Device | Sequence[Device]
    ) -> None:
        """`device`: where the model computes, or each of its layers."""
        super().__init__(heads, blocks, dtype, "cpu")
        self.devices = of_each(device, len(self.heads))

    def write(
        self, layer: int, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Puts T keys and values [T, heads, features] at slots [T]; returns them."""
        super().write(layer, slots.cpu(), keys.detach().cpu(), values.detach().cpu())
        return keys, values

    def clear(self, layer: int, blocks: torch.Tensor) -> None:
        """Zeroes whole blocks."""
        super().clear(layer, blocks.cpu())

    def move(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copies what lies at slots [N] to others, all at once."""
        super().move(sources.cpu(), targets.cpu())

    def read_at(self, layer: int, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values at slots [R, K], where the layer computes."""
        keys, values = super().read_at(layer, slots.cpu())
        return keys.to(self.devices[layer]), values.to(self.devices[layer])

    def read(self, layer: int, tables: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values of R rows' blocks [R, B], laid end to end, where the layer computes."""
        keys, values = super().read(layer, tables.cpu())
        return keys.to(self.devices[layer]), values.to(self.devices[layer])
