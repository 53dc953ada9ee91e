"""A cache that remembers tokens in place of keys and values, so that any row can be computed again from its start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fabula.cache.blocks import BLOCK
from fabula.ops.protocol import Batch


class RememberedTokens:
    """`blocks` blocks of tokens; `held` is what a module keeps beside them, and may be lost at any time."""

    def __init__(self, blocks: int, held: Any = None) -> None:
        self.tokens = _unknown(blocks)
        self.held = held

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self.tokens)

    @property
    def nbytes(self) -> int:
        """What the tokens take; what a module keeps for itself is not known here."""
        return self.tokens.nbytes

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies whole blocks, all at once: a block may be a source and a target."""
        self.tokens[list(targets)] = self.tokens[list(sources)]

    def grow(self, blocks: int) -> None:
        """Adds blocks until there are `blocks`."""
        self.tokens = np.concatenate([self.tokens, _unknown(max(0, blocks - self.blocks))])

    def rows(self, batch: Batch) -> list[np.ndarray]:
        """Writes the batch's tokens, then gives of each row every token from its start to the end of this step."""
        rows = []
        for row, table in enumerate(batch.tables):
            start, end = int(batch.starts[row]), int(batch.starts[row + 1])
            first = int(batch.first[row])
            positions = first + np.arange(end - start)
            self.tokens[table[positions // BLOCK], positions % BLOCK] = batch.tokens[start:end]
            length = first + end - start
            rows.append(self.tokens[table[: -(-length // BLOCK)]].reshape(-1)[:length])
        return rows


def _unknown(blocks: int) -> np.ndarray:
    """Int32["blocks positions"]: no tokens."""
    return np.full((blocks, BLOCK), -1, np.int32)
