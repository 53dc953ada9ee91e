"""Keys and values for the kernels: one array, a row of bytes a block, all layers of a block side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fabula import arrays
from fabula.cache.blocks import BLOCK
from fabula.errors import OutOfMemoryError
from fabula.kernels.stored import LANES, Stored, gathered, write


@dataclass(frozen=True, slots=True)
class NativeLayout:
    """Where each layer's keys and values lie in a block; how is told by kernels/stored.py."""

    heads: tuple[tuple[int, int], ...]  # for each layer its key heads and the features of one
    bits: int  # of a number: 32 or 16 for floats, 8 or 4 for codes
    group: int = 0  # features that share a scale, at most, where codes are stored

    def stored(self, layer: int) -> Stored:
        """One layer's."""
        return self._layers()[0][layer]

    @property
    def block_bytes(self) -> int:
        """Bytes of a block, all layers."""
        return self._layers()[1]

    def _layers(self) -> tuple[list[Stored], int]:
        """Each layer's, and where the last one ends."""
        layers, end = [], 0
        for kv_heads, head_dim in self.heads:
            group = min(self.group, -(-head_dim // LANES) * LANES) if self.group else 0
            own = Stored(kv_heads, head_dim, self.bits, group, end, 0)
            layers.append(replace(own, value_offset=end + _aligned(own.key_bytes)))
            end = layers[-1].value_offset + _aligned(own.value_bytes)
        return layers, end


def _aligned(count: int) -> int:
    return -(-count // 64) * 64


class NativeCache:
    """Storage for `blocks` blocks; who owns which is not known here."""

    def __init__(self, layout: NativeLayout, blocks: int) -> None:
        """Raises OutOfMemoryError."""
        self.layout = layout
        self.data = _zeros(blocks, layout.block_bytes)

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self.data)

    @property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """For each layer its key heads and the features of one."""
        return self.layout.heads

    @property
    def nbytes(self) -> int:
        """What the blocks take."""
        return self.data.nbytes

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies whole blocks, all at once: a block may be a source and a target."""
        self.data[np.asarray(targets, np.intp)] = self.data[np.asarray(sources, np.intp)]

    def read_row(self, layer: int, blocks: Sequence[int], length: int) -> tuple[np.ndarray, np.ndarray]:
        """The keys and values that lie in a row's blocks, each Float32["length heads features"]."""
        keys, values = gathered(self.layout.stored(layer), np.asarray(blocks, np.intp), length, self.data)
        return keys.transpose(1, 0, 2), values.transpose(1, 0, 2)

    def write_row(self, layer: int, blocks: Sequence[int], keys: Any, values: Any) -> None:
        """Puts keys and values, each Float["L heads features"] of any framework, into a row's blocks."""
        positions = np.arange(len(keys))
        chosen = np.asarray(blocks, np.intp)[positions // BLOCK]
        write(self.layout.stored(layer), _host(keys), _host(values), chosen, positions % BLOCK, self.data)

    def grow(self, blocks: int) -> None:
        """Makes room for `blocks` blocks, what is stored kept. Raises OutOfMemoryError."""
        if blocks > self.blocks:
            larger = _zeros(blocks, self.layout.block_bytes)
            larger[: self.blocks] = self.data
            self.data = larger


def _host(x: Any) -> np.ndarray:
    xp = arrays.of(x)
    return xp.to_host(xp.astype(x, "float32"))


def _zeros(blocks: int, block_bytes: int) -> np.ndarray:
    try:
        return np.zeros((blocks, block_bytes), np.uint8)
    except (MemoryError, ValueError) as error:
        raise OutOfMemoryError(
            f"{blocks} cache blocks of {block_bytes:,} bytes do not fit in memory. Ask for fewer rows or positions."
        ) from error
