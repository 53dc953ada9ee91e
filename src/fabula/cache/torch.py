"""Keys and values in PyTorch: one tensor of blocks a layer, written in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fabula.cache.blocks import BLOCK
from fabula.errors import OutOfMemoryError

Device = torch.device | str


class TorchCache:
    """Storage for `blocks` blocks of BLOCK positions in every layer; who owns which is not known here."""

    def __init__(
        self, heads: Sequence[tuple[int, int]], blocks: int, dtype: torch.dtype, device: Device | Sequence[Device]
    ) -> None:
        """`heads`: for each layer its key heads and the features of one; `device`: of all layers, or of each."""
        self.heads = tuple(heads)
        self.blocks = blocks
        self.dtype = dtype
        devices = of_each(device, len(self.heads))
        self.keys, self.values = (
            [zeros((blocks, BLOCK, *shape), dtype, place) for shape, place in zip(self.heads, devices, strict=True)]
            for _ in range(2)
        )

    @property
    def stored(self) -> list[list[torch.Tensor]]:
        """All that is stored: each a tensor a layer, blocks first."""
        return [self.keys, self.values]

    @property
    def nbytes(self) -> int:
        """What is stored takes."""
        return sum(tensor.nbytes for part in self.stored for tensor in part)

    def write(
        self, layer: int, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Puts T keys and values [T, heads, features] at slots [T]: block * BLOCK + place in the block.

        Returns them as a later step will read them, which is what this step is to attend to as well.
        """
        self.keys[layer].flatten(0, 1).index_copy_(0, slots, keys.detach())
        self.values[layer].flatten(0, 1).index_copy_(0, slots, values.detach())
        return keys, values

    def read_row(self, layer: int, blocks: Sequence[int], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values that lie in a row's blocks, each [length, heads, features]."""
        tables = torch.tensor([list(blocks)], dtype=torch.int64, device=self.keys[layer].device)
        keys, values = self.read(layer, tables)
        return keys[0, :length], values[0, :length]

    def write_row(self, layer: int, blocks: Sequence[int], keys: Any, values: Any) -> None:
        """Puts keys and values, each [L, heads, features] of PyTorch or NumPy, into a row's blocks."""
        device = self.keys[layer].device
        positions = np.arange(len(keys))
        slots = np.asarray(blocks, np.int64)[positions // BLOCK] * BLOCK + positions % BLOCK
        if len(blocks):
            self.clear(layer, torch.tensor([blocks[-1]], dtype=torch.int64, device=device))
        given = (torch.as_tensor(part).to(device, self.dtype) for part in (keys, values))
        self.write(layer, torch.from_numpy(slots).to(device), *given)

    def clear(self, layer: int, blocks: torch.Tensor) -> None:
        """Zeroes whole blocks: what an earlier owner left must not be infinite, even where nobody looks."""
        self.keys[layer].index_fill_(0, blocks, 0)
        self.values[layer].index_fill_(0, blocks, 0)

    def read(self, layer: int, tables: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values of R rows' blocks [R, B], laid end to end: [R, B * BLOCK, heads, features]."""
        rows, width = tables.shape
        shape = (rows, width * BLOCK, *self.heads[layer])
        flat = tables.reshape(-1)
        return (
            self.keys[layer].index_select(0, flat).view(shape),
            self.values[layer].index_select(0, flat).view(shape),
        )

    def read_at(self, layer: int, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values at slots [R, K], as `write` has them: [R, K, heads, features]."""
        shape = (*slots.shape, *self.heads[layer])
        flat = slots.reshape(-1)
        return (
            self.keys[layer].flatten(0, 1).index_select(0, flat).view(shape),
            self.values[layer].flatten(0, 1).index_select(0, flat).view(shape),
        )

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies whole blocks, all at once: a block may be a source and a target."""
        copy_blocks([tensor for part in self.stored for tensor in part], sources, targets)

    def move(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copies what lies at slots [N] to others, all at once; what has the same target has the same source."""
        for part in self.stored:
            for tensor in part:
                flat = tensor.flatten(0, 1)
                flat.index_copy_(0, targets, flat.index_select(0, sources))

    def grow(self, blocks: int) -> None:
        """Makes room for `blocks` blocks, what is stored kept."""
        if blocks <= self.blocks:
            return
        self.keys = [grown(tensor, blocks) for tensor in self.keys]
        self.values = [grown(tensor, blocks) for tensor in self.values]
        self.blocks = blocks


def of_each(device: Device | Sequence[Device], layers: int) -> Sequence[Device]:
    """The device of each layer."""
    return [device] * layers if isinstance(device, (str, torch.device)) else device


def copy_blocks(stored: Sequence[torch.Tensor], sources: Sequence[int], targets: Sequence[int]) -> None:
    """Copies whole blocks of each tensor, wherever it is, all at once."""
    both = torch.from_numpy(np.array([sources, targets], np.int64))
    there = {device: both.to(device) for device in {tensor.device for tensor in stored}}
    for tensor in stored:
        source, target = there[tensor.device]
        tensor.index_copy_(0, target, tensor.index_select(0, source))


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
    """Storage, which may be written outside of the inference mode that it is made in. Raises OutOfMemoryError."""
    try:
        with torch.inference_mode(False):
            return torch.zeros(shape, dtype=dtype, device=device)
    except (RuntimeError, MemoryError) as error:
        raise OutOfMemoryError(
            f"{shape[0]} cache blocks do not fit in the memory of {device}: {error}. Ask for fewer rows or positions."
        ) from error


def grown(tensor: torch.Tensor, blocks: int) -> torch.Tensor:
    """The same with room for so many blocks."""
    larger = zeros((blocks, *tensor.shape[1:]), tensor.dtype, tensor.device)
    larger[: tensor.shape[0]] = tensor
    return larger
