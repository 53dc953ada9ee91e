"""A model that tells on you, and that can run many steps by itself."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from fabula.cache.blocks import BLOCK
from fabula.decoding.closed import decode, map_arrays, new_tokens
from fabula.ops.protocol import NO_TAPS, Forward
from fabula.testing.hash_model import HashModel


class BurstModel(HashModel):
    """A HashModel whose `burst` is the loop that compiled backends run, here one turn after another."""

    def __init__(self, vocabulary=50, framework="numpy"):
        super().__init__(vocabulary)
        self.xp = import_module(f"fabula.arrays.{framework}")
        self.bursts = []  # how many tokens each row got in each burst
        self.unlucky = None  # a token after which the model says NaN

    def step(self, batch, cache, taps=NO_TAPS):
        forward = super().step(batch, cache, taps)
        return Forward(self.xp.asarray(forward.logits, "float32"))

    def next_logits(self, tokens):
        logits = super().next_logits(tokens)
        return logits * np.nan if tokens[-1] == self.unlucky else logits

    def burst(self, batch, cache, form, rows):
        def forward(last, positions, computed):
            logits = []
            last, positions = (self.xp.to_host(part) for part in (last, positions))
            for token, position, table in zip(last.tolist(), positions.tolist(), batch.tables, strict=True):
                assert position // BLOCK < len(table), "a position without a block"
                cache.tokens[table[position // BLOCK], position % BLOCK] = token
                logits.append(self.next_logits(cache.tokens[table].reshape(-1)[: position + 1]))
            return self.xp.asarray(np.array(logits), "float32"), computed + 1

        here = map_arrays(rows, lambda part: self.xp.asarray(part, str(part.dtype)))
        tokens, lengths, self.turns = decode(forward, 0, form, here)
        new = new_tokens(rows, self.xp.to_host(tokens), self.xp.to_host(lengths))
        self.bursts.append([len(part) for part in new])
        return new
