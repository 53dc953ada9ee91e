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


@dataclass(frozen=True, eq=False, slots=True)
class NativeLayout:
    """Where each layer's keys and values lie in a block; how is told by kernels/stored.py. Each is only itself."""

    layers: tuple[Stored, ...]
    block_bytes: int  # of a block, all layers

    def __deepcopy__(self, memo: Any) -> NativeLayout:
        """Itself: a copied cache is still the same model's."""
        return self


def native_layout(heads: Sequence[tuple[int, int]], bits: int, group: int = 0) -> NativeLayout:
    """Of layers with so many key heads of so many features each, one behind the other.

    `bits` of a number: 32 or 16 for floats, 8 or 4 for codes, of which at most `group` features share a scale.
    """
    layers, end = [], 0
    for kv_heads, head_dim in heads:
        own = Stored(kv_heads, head_dim, bits, min(group, -(-head_dim // LANES) * LANES), end, 0)
        layers.append(replace(own, value_offset=end + _aligned(own.key_bytes)))
        end = layers[-1].value_offset + _aligned(own.value_bytes)
    return NativeLayout(tuple(layers), end)


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
        return tuple((layer.kv_heads, layer.head_dim) for layer in self.layout.layers)

    @property
    def nbytes(self) -> int:
        """What the blocks take."""
        return self.data.nbytes

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies whole blocks, all at once: a block may be a source and a target."""
        self.data[np.asarray(targets, np.intp)] = self.data[np.asarray(sources, np.intp)]

    def read_row(self, layer: int, blocks: Sequence[int], length: int) -> tuple[np.ndarray, np.ndarray]:
        """The keys and values that lie in a row's blocks, each Float32["length heads features"]."""
        keys, values = gathered(self.layout.layers[layer], np.asarray(blocks, np.intp), length, self.data)
        return keys.transpose(1, 0, 2), values.transpose(1, 0, 2)

    def write_row(self, layer: int, blocks: Sequence[int], keys: Any, values: Any) -> None:
        """Puts keys and values, each Float["L heads features"] of any framework, into a row's blocks."""
        positions = np.arange(len(keys))
        chosen = np.asarray(blocks, np.intp)[positions // BLOCK]
        write(self.layout.layers[layer], _host(keys), _host(values), chosen, positions % BLOCK, self.data)

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
