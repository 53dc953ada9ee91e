"""What an encoder leaves for the kernels: blocks as a cache's, which are written once and then only read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fabula.cache.native import NativeLayout
from fabula.errors import ArgumentError


@dataclass(frozen=True, eq=False, slots=True)
class NativeMemory:
    """One input's keys and values for every decoder layer; all rows that continue from that input share it."""

    layout: NativeLayout
    data: np.ndarray  # UInt8["blocks bytes"]
    length: int  # how many positions it has


@dataclass(frozen=True, eq=False, slots=True)
class NativeMemories:
    """What an encoder left of a call's inputs."""

    rows: Sequence[NativeMemory]

    def each(self) -> list[NativeMemory]:
        """One for each input."""
        return list(self.rows)


def check_memories(memories: Sequence[object], rows: int, layout: NativeLayout) -> None:
    """Raises ArgumentError unless each of so many rows has a memory, laid out like this."""
    if len(memories) != rows:
        raise ArgumentError("each row of a model with an encoder must have a memory, got none. Encode its input.")
    for memory in memories:
        if not isinstance(memory, NativeMemory):
            raise ArgumentError(
                f"a row's memory must be what `encode` of its model returned, got {type(memory).__name__}."
            )
        if memory.layout is not layout:
            raise ArgumentError("a row's memory must be what `encode` of its model returned, got another model's.")


def lowered_memories(memories: Sequence[NativeMemory]) -> tuple[np.ndarray, np.ndarray]:
    """Where each row's memory lies, and how long it is, as the library takes them."""
    places = np.array([memory.data.ctypes.data for memory in memories], np.uint64)
    return places, np.array([memory.length for memory in memories], np.int32)
