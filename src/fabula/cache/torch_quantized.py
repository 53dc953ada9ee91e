"""Keys and values of 8 or 4 bits in PyTorch; each head of each position has scales of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fabula.cache.blocks import BLOCK
from fabula.cache.coding import LEAST_STEP, Coding, hadamard
from fabula.cache.torch import Device, TorchCache, grown, of_each, zeros


class QuantizedTorchCache(TorchCache):
    """Blocks of codes. A group of features of one head at one position has a scale and a least value, 16 bits each.

    The features of a head are turned before, so that none stands out, and turned back when they are read.
    Attention reads what is stored, also of the positions that a step has just computed: a row does not depend on
    the steps that it was computed in.
    """

    def __init__(
        self,
        heads: Sequence[tuple[int, int]],
        blocks: int,
        dtype: torch.dtype,
        device: Device | Sequence[Device],
        bits: int,
        group: int,
    ) -> None:
        """`bits`: 8 or 4; `group`: features that share a scale, at most; `dtype`: of what is read.

        `device`: of all layers, or of each.
        """
        self.heads = tuple(heads)
        self.blocks = blocks
        self.dtype = dtype
        self.bits = bits
        devices = of_each(device, len(self.heads))
        self.codings = [Coding(features, bits, group) for _, features in self.heads]
        pairs = zip(self.codings, devices, strict=True)
        self.turns = [torch.from_numpy(hadamard(coding.features)).to(place) for coding, place in pairs]
        self.keys, self.values = ([self._codes(*each) for each in enumerate(devices)] for _ in range(2))
        self.key_scales, self.value_scales = ([self._scales(*each) for each in enumerate(devices)] for _ in range(2))

    def _codes(self, layer: int, device: Device) -> torch.Tensor:
        """UInt8["blocks BLOCK heads bytes"]."""
        heads, _ = self.heads[layer]
        return zeros((self.blocks, BLOCK, heads, self.codings[layer].code_bytes), torch.uint8, device)

    def _scales(self, layer: int, device: Device) -> torch.Tensor:
        """Float16["blocks BLOCK heads groups 2"]: scale and least value."""
        heads, _ = self.heads[layer]
        return zeros((self.blocks, BLOCK, heads, self.codings[layer].groups, 2), torch.float16, device)

    @property
    def stored(self) -> list[list[torch.Tensor]]:
        """All that is stored: each a tensor a layer, blocks first."""
        return [self.keys, self.values, self.key_scales, self.value_scales]

    def write(
        self, layer: int, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Puts T keys and values [T, heads, features] at slots [T]; returns what reading them gives."""
        read = []
        for given, codes, scales in (
            (keys, self.keys[layer], self.key_scales[layer]),
            (values, self.values[layer], self.value_scales[layer]),
        ):
            packed, own = self._quantized(layer, given.detach())
            codes.flatten(0, 1).index_copy_(0, slots, packed)
            scales.flatten(0, 1).index_copy_(0, slots, own)
            read.append(self._restored(layer, packed, own))
        return read[0], read[1]

    def clear(self, layer: int, blocks: torch.Tensor) -> None:
        """Zeroes whole blocks."""
        for part in self.stored:
            part[layer].index_fill_(0, blocks, 0)

    def read(self, layer: int, tables: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values of R rows' blocks [R, B], laid end to end: [R, B * BLOCK, heads, features]."""
        rows, width = tables.shape
        return self._read(layer, tables, 0, (rows, width * BLOCK))

    def read_at(self, layer: int, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values at slots [R, K], as `write` has them: [R, K, heads, features]."""
        return self._read(layer, slots, 1, tuple(slots.shape))

    def _read(
        self, layer: int, index: torch.Tensor, level: int, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [*shape, heads, features] at indices of blocks, level 0, or of slots, level 1."""
        flat = index.reshape(-1)
        keys, values = (
            self._restored(layer, *(part[layer].flatten(0, level).index_select(0, flat) for part in parts)).view(
                *shape, *self.heads[layer]
            )
            for parts in ((self.keys, self.key_scales), (self.values, self.value_scales))
        )
        return keys, values

    def grow(self, blocks: int) -> None:
        """Makes room for `blocks` blocks, what is stored kept."""
        if blocks <= self.blocks:
            return
        self.keys, self.values, self.key_scales, self.value_scales = (
            [grown(tensor, blocks) for tensor in part] for part in self.stored
        )
        self.blocks = blocks

    def _quantized(self, layer: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes, UInt8["T heads bytes"], and scales, Float16["T heads groups 2"], of Float["T heads features"]."""
        coding, turned = self.codings[layer], x.float() @ self.turns[layer]
        padded = torch.nn.functional.pad(turned, (0, coding.padded - coding.features))
        groups = padded.unflatten(-1, (-1, coding.width))
        least, most = groups.aminmax(dim=-1)
        scales = torch.stack([(most - least) / coding.most, least], -1).half()
        step, base = scales.float().unbind(-1)
        codes = ((groups - base[..., None]) / step.clamp_min(LEAST_STEP)[..., None]).round().clamp_(0, coding.most)
        flat = codes.to(torch.uint8).flatten(-2)
        return (flat if self.bits == 8 else flat[..., 0::2] | flat[..., 1::2] << 4), scales

    def _restored(self, layer: int, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """[..., heads, features] from codes [..., heads, bytes]."""
        if self.bits == 4:
            codes = torch.stack([codes & 15, codes >> 4], -1).flatten(-2)
        groups = codes.unflatten(-1, (-1, self.codings[layer].width)).float()
        step, base = scales.float().unbind(-1)
        whole = (groups * step[..., None] + base[..., None]).flatten(-2)
        return (whole[..., : self.heads[layer][1]] @ self.turns[layer].T).to(self.dtype)
