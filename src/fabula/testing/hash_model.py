"""A model that tells on you: its logits depend on every token that its cache holds for a row, and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fabula.cache.blocks import BLOCK
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps


class TokenStorage:
    """A cache that stores, in place of keys and values, the token that was computed at each position."""

    def __init__(self, blocks: int) -> None:
        self.tokens = np.full((blocks, BLOCK), -1, np.int64)

    @property
    def blocks(self) -> int:
        return len(self.tokens)

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies whole blocks."""
        self.tokens[list(targets)] = self.tokens[list(sources)]

    def grow(self, blocks: int) -> None:
        """Adds blocks that hold nothing yet."""
        more = np.full((blocks - self.blocks, BLOCK), -1, np.int64)
        self.tokens = np.concatenate([self.tokens, more])


class HashModel:
    """Deterministic random logits: `next_logits` of the tokens from a row's start to the scored position."""

    def __init__(self, vocabulary: int = 50) -> None:
        self.vocabulary = vocabulary
        self.steps = 0
        self.computed = 0  # positions, over all steps

    def new_cache(self, blocks: int) -> TokenStorage:
        """An empty cache of so many blocks."""
        return TokenStorage(blocks)

    def next_logits(self, tokens: Sequence[int]) -> np.ndarray:
        """The logits after these tokens: [V]."""
        words = np.asarray(tokens, np.uint32)
        return np.random.default_rng(np.concatenate([[len(words)], words])).standard_normal(self.vocabulary, np.float32)

    def step(self, batch: Batch, cache: TokenStorage, taps: Taps = NO_TAPS) -> Forward:
        """Writes the batch's tokens to the cache, then reads every scored row's tokens back from it."""
        self.steps += 1
        self.computed += len(batch.tokens)
        logits = []
        for row, table in enumerate(batch.tables):
            start, end = batch.starts[row], batch.starts[row + 1]
            positions = batch.first[row] + np.arange(end - start)
            cache.tokens[table[positions // BLOCK], positions % BLOCK] = batch.tokens[start:end]
            for scored in batch.scored[(batch.scored >= start) & (batch.scored < end)]:
                length = batch.first[row] + scored - start + 1
                logits.append(self.next_logits(cache.tokens[table].reshape(-1)[:length]))
        return Forward(np.array(logits, np.float32).reshape(-1, self.vocabulary))
