"""Keys and values for the kernels: one array, a row of bytes a block, all layers of a block side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula import arrays
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
        keys, values = self._views(layer)
        chosen, (kv_heads, head_dim) = np.asarray(blocks, np.intp), self.layout.heads[layer]
        k = keys[chosen].transpose(0, 2, 4, 1, 3).reshape(-1, kv_heads, head_dim)
        v = values[chosen].transpose(0, 3, 1, 2, 4).reshape(len(k), kv_heads, -1)
        return k[:length].astype(np.float32), v[:length, :, :head_dim].astype(np.float32)

    def write_row(self, layer: int, blocks: Sequence[int], keys: Any, values: Any) -> None:
        """Puts keys and values, each Float["L heads features"] of any framework, into a row's blocks."""
        there_keys, there_values = self._views(layer)
        (kv_heads, head_dim), positions = self.layout.heads[layer], np.arange(len(keys))
        chosen, places = np.asarray(blocks, np.intp)[positions // BLOCK], positions % BLOCK
        wide = np.zeros((len(values), kv_heads, there_values.shape[2] * LANES), np.float32)
        wide[..., :head_dim] = _host(values)
        there_keys[chosen, :, places // LANES, :, places % LANES] = _host(keys)
        there_values[chosen, :, :, places] = wide.reshape(len(wide), kv_heads, -1, LANES)

    def _views(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """All blocks' keys, [blocks heads 2 features 16], and values, [blocks heads features/16 32 16]."""
        (kv_heads, head_dim), dtype = self.layout.heads[layer], np.dtype(self.layout.dtype)
        shapes = (kv_heads, BLOCK // LANES, head_dim, LANES), (kv_heads, -(-head_dim // LANES), BLOCK, LANES)
        views = []
        for offset, shape in zip(self.layout.offsets(layer), shapes, strict=True):
            part = self.data[:, offset : offset + int(np.prod(shape)) * dtype.itemsize]
            views.append(part.view(dtype).reshape(self.blocks, *shape))
        return views[0], views[1]

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
