"""A model that tells on you, and that can run many steps by itself."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import numpy as np

from fabula.cache.blocks import BLOCK
from fabula.decoding.closed.beam_found import made_by
from fabula.decoding.closed.beam_loop import decode_beams
from fabula.decoding.closed.beams import beam_leaves_of
from fabula.decoding.closed.contrastive import settled_of, text_leaves_of
from fabula.decoding.closed.contrastive_loop import FoundTexts, decode_texts
from fabula.decoding.closed.loop import decode
from fabula.decoding.closed.record import Recorded, blank, gained_of
from fabula.decoding.closed.rows import map_arrays
from fabula.ops.protocol import NO_TAPS, Forward
from fabula.testing.hash_model import HashModel

FEATURES = 6  # of a hidden state


class BurstModel(HashModel):
    """A HashModel whose bursts are the loops that compiled backends run, here one turn after another."""

    def __init__(self, vocabulary=50, framework="numpy"):
        super().__init__(vocabulary)
        self.xp = import_module(f"fabula.arrays.{framework}")
        self.bursts = []  # how many tokens each row got in each burst
        self.unlucky = None  # a token after which the model says NaN

    def step(self, batch, cache, taps=NO_TAPS):
        forward = super().step(batch, cache, taps)
        early = {layer: self.xp.asarray(self.early(forward.logits, layer), "float32") for layer in taps.layer_logits}
        hidden = self.xp.asarray(self.hidden_of(batch, cache), "float32") if taps.final_hidden else None
        return Forward(self.xp.asarray(forward.logits, "float32"), hidden, layer_logits=early or None)

    def hidden_of(self, batch, cache):
        """Float["S D"]: after what the cache holds of a row, up to each of its scored positions."""
        found = []
        for row, table in enumerate(batch.tables):
            start, end = batch.starts[row], batch.starts[row + 1]
            for scored in batch.scored[(batch.scored >= start) & (batch.scored < end)]:
                found.append(self.hidden(cache.tokens[table].reshape(-1)[: batch.first[row] + scored - start + 1]))
        return np.array(found, np.float32).reshape(-1, FEATURES)

    def hidden(self, tokens):
        """Float["D"]: the final hidden state after these tokens."""
        words = np.asarray(tokens, np.uint32)
        return np.random.default_rng(np.concatenate([[7, len(words)], words])).standard_normal(FEATURES, np.float32)

    def early(self, logits, layer):
        """What the head makes of a layer's output."""
        return np.roll(logits, layer, -1)

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
            heads = [np.array(logits), *(self.early(np.array(logits), layer) for layer in form.layers)]
            heads = [self.xp.asarray(head, "float32") for head in heads]
            return heads if form.layers else heads[0], computed + 1

        here = map_arrays(rows, lambda part: self.xp.asarray(part, str(part.dtype)))
        kept = blank(self.xp, form, here, int(rows.room.max()), self.vocabulary)
        end = decode(forward, 0, form, here, kept=kept)
        if kept:
            kept = Recorded(*(part if isinstance(part, tuple) else self.xp.to_host(part) for part in end.kept))
        new = gained_of(rows, self.xp.to_host(end.tokens), self.xp.to_host(end.lengths), kept, len(rows.lengths))
        self.bursts.append([len(part) for part in new])
        return new

    def burst_texts(self, batch, cache, form, texts):
        xp = self.xp
        leaves, rebuild = text_leaves_of(texts)
        here = rebuild([xp.asarray(part, str(part.dtype)) for part in leaves])
        dense = cache.tokens[batch.tables].reshape(len(batch.tables), -1)
        every, writing = np.arange(len(dense)), form.first_of(len(dense))
        needed = int((batch.first[writing] + texts.rows.room.repeat(form.chain.each)).max())
        assert needed <= dense.shape[1], "a position without a block"

        def forward(last, positions, dense):
            last, positions = xp.to_host(last), xp.to_host(positions)
            dense = dense.copy()
            dense[every, positions] = last
            rows = [row[: position + 1] for row, position in zip(dense, positions, strict=True)]
            found = (np.array([of(row) for row in rows]) for of in (self.next_logits, self.hidden))
            return tuple(xp.asarray(part, "float32") for part in found), dense

        def share(dense, parents, positions):
            parents, positions = xp.to_host(parents), xp.to_host(positions)
            dense = dense.copy()
            dense[every, positions] = dense[parents, positions]
            return dense

        turns = int(texts.rows.room.max())
        kept = blank(xp, form.chain, here.rows, turns, self.vocabulary)
        wider = replace(here, read=xp.concat([here.read, xp.zeros_like(here.read[:, :1])] * (turns + 1), axis=1))
        found, dense = decode_texts(forward, share, dense, form, wider, turns, kept)
        if found.kept:
            kept = Recorded(*(part if isinstance(part, tuple) else xp.to_host(part) for part in found.kept))
        found = FoundTexts(*map(xp.to_host, found[:-1]), kept)
        settled = settled_of(texts, found, len(texts.alpha))
        for row in writing:
            for position in range(batch.first[row], batch.first[row] + len(settled[row // form.each])):
                cache.tokens[batch.tables[row, position // BLOCK], position % BLOCK] = dense[row, position]
        self.bursts.append([len(own) for own in settled])
        return settled

    def burst_beams(self, batch, cache, form, beams):
        xp = self.xp
        leaves, rebuild = beam_leaves_of(beams)
        here = rebuild([xp.asarray(part, str(part.dtype)) for part in leaves])
        dense = cache.tokens[batch.tables].reshape(len(batch.tables), -1)

        def forward(last, positions, dense):
            last, positions = xp.to_host(last), xp.to_host(positions)
            dense = dense.copy()
            dense[np.arange(len(last)), positions] = last
            logits = [self.next_logits(row[: position + 1]) for row, position in zip(dense, positions, strict=True)]
            return xp.asarray(np.array(logits), "float32"), dense

        def reorder(dense, rows):
            return dense[xp.to_host(rows)]

        found, dense = decode_beams(forward, reorder, dense, form, here, vocabulary=self.vocabulary)
        made = made_by(form, found.on_host(xp.to_host), len(beams.hasty))
        turns = [len(own) for own in made]
        for row, (table, first) in enumerate(zip(batch.tables, batch.first, strict=True)):
            for position in range(first // BLOCK * BLOCK, first + turns[row // form.each]):
                cache.tokens[table[position // BLOCK], position % BLOCK] = dense[row, position]
        self.bursts.append(turns)
        return made


class Stepping(BurstModel):
    """The same model without bursts."""

    burst = burst_beams = burst_texts = None
