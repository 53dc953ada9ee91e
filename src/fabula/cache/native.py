"""Keys and values for the kernels: one array, a row of bytes a block, all layers of a block side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fabula.cache.blocks import BLOCK
from fabula.errors import OutOfMemoryError

LANES = 16  # positions, or features, that lie next to each other


@dataclass(frozen=True, slots=True)
class NativeLayout:
    """Where each layer's keys and values lie in a block, in bytes.

    A head's keys are [2][head_dim][16 positions], its values [head_dim / 16][32 positions][16].
    """

    heads: tuple[tuple[int, int], ...]  # for each layer its key heads and the features of one
    single: bool  # 32-bit floats, else 16-bit

    @property
    def dtype(self) -> type[np.floating]:
        """What is stored."""
        return np.float32 if self.single else np.float16

    def sizes(self, layer: int) -> tuple[int, int]:
        """Bytes of a block's keys, and of its values."""
        kv_heads, head_dim = self.heads[layer]
        padded = -(-head_dim // LANES) * LANES
        item = np.dtype(self.dtype).itemsize
        return _aligned(kv_heads * head_dim * BLOCK * item), _aligned(kv_heads * padded * BLOCK * item)

    def offsets(self, layer: int) -> tuple[int, int]:
        """Where a layer's keys and values begin in a block."""
        start = sum(sum(self.sizes(each)) for each in range(layer))
        return start, start + self.sizes(layer)[0]

    @property
    def block_bytes(self) -> int:
        """Bytes of a block, all layers."""
        return sum(sum(self.sizes(layer)) for layer in range(len(self.heads)))


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
    def nbytes(self) -> int:
        """What the blocks take."""
        return self.data.nbytes

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies whole blocks, all at once: a block may be a source and a target."""
        self.data[np.asarray(targets, np.intp)] = self.data[np.asarray(sources, np.intp)]

    def grow(self, blocks: int) -> None:
        """Makes room for `blocks` blocks, what is stored kept. Raises OutOfMemoryError."""
        if blocks > self.blocks:
            larger = _zeros(blocks, self.layout.block_bytes)
            larger[: self.blocks] = self.data
            self.data = larger


def _zeros(blocks: int, block_bytes: int) -> np.ndarray:
    try:
        return np.zeros((blocks, block_bytes), np.uint8)
    except (MemoryError, ValueError) as error:
        raise OutOfMemoryError(
            f"{blocks} cache blocks of {block_bytes:,} bytes do not fit in memory. Ask for fewer rows or positions."
        ) from error
