"""A model that tells on you: its logits depend on every token that its cache holds for a row, and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fabula.adapters.remembered import RememberedTokens
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps


class HashModel:
    """Deterministic random logits: `next_logits` of the tokens from a row's start to the scored position."""

    def __init__(self, vocabulary: int = 50) -> None:
        self.vocabulary = vocabulary
        self.steps = 0
        self.computed = 0  # positions, over all steps

    def new_cache(self, blocks: int) -> RememberedTokens:
        """An empty cache of so many blocks."""
        return RememberedTokens(blocks)

    def next_logits(self, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
        """The logits after these tokens: [V]."""
        words = np.asarray(tokens, np.uint32)
        return np.random.default_rng(np.concatenate([[len(words)], words])).standard_normal(self.vocabulary, np.float32)

    def step(self, batch: Batch, cache: RememberedTokens, taps: Taps = NO_TAPS) -> Forward:
        """Writes the batch's tokens to the cache, then reads every scored row's tokens back from it."""
        self.steps += 1
        self.computed += len(batch.tokens)
        logits = []
        for row, tokens in enumerate(cache.rows(batch)):
            start, end = batch.starts[row], batch.starts[row + 1]
            for scored in batch.scored[(batch.scored >= start) & (batch.scored < end)]:
                logits.append(self.next_logits(tokens[: batch.first[row] + scored - start + 1]))
        return Forward(np.array(logits, np.float32).reshape(-1, self.vocabulary))
