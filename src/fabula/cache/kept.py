"""What is kept of a row after it has ended: its tokens, and the blocks that hold what was computed of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula.cache.blocks import Table

UNKNOWN = -1  # in place of a token whose keys and values came from elsewhere without it


class KeptRow:
    """A row's tokens, Int["L"], of which the first `computed` are in the blocks of `table`.

    An engine may take the blocks back when it needs them; then the tokens are computed again.
    """

    __slots__ = ("__weakref__", "computed", "foreign", "memory", "table", "tokens", "vectors")

    def __init__(
        self, tokens: np.ndarray, table: Table, computed: int, memory: Any = None, vectors: Any = None
    ) -> None:
        self.tokens = tokens
        self.table = table
        self.computed = computed  # an engine's to lower
        self.memory = memory  # what an encoder made of the row's input
        self.vectors = vectors  # Float["P D"]: what took the place of the first P ids
        self.foreign = False  # whether keys and values came from elsewhere, and are nobody else's to find

    @property
    def is_known(self) -> bool:
        """Whether the tokens are all that is needed to compute the row again."""
        return not (self.tokens == UNKNOWN).any()


@dataclass(frozen=True, slots=True)
class Continued:
    """What a new row takes over."""

    row: KeptRow
    length: int  # how many of its tokens the new row begins with

    def usable(self, length: int) -> int:
        """How many positions a row of `length` tokens need not compute; its last one always is."""
        return max(0, min(self.length, self.row.computed, length - 1))
