"""Many turns of beam search in PyTorch: a row reads keys and values where those it descends from have left them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from fabula.arrays import torch as functions
from fabula.cache.blocks import BLOCK, blocks_for
from fabula.cache.torch import TorchCache
from fabula.decoding.closed.beam_found import Made, made_by
from fabula.decoding.closed.beam_loop import decode_beams
from fabula.decoding.closed.beams import BeamForm, ClosedBeams, beam_leaves_of
from fabula.models.bursts.torch import ahead_on, begun_blocks, computed, moved, steered
from fabula.models.bursts.torch_beams_graph import start_beams
from fabula.models.bursts.torch_graph import Graphs, Steer
from fabula.models.families.family import Family
from fabula.models.passes.torch import Weights
from fabula.ops.protocol import Batch
from fabula.ops.torch_layout import Group, Layout, Reach, blocks_read, sees, to_device
from fabula.ops.torch_memory import MemoryLayout, memory_layout

Tensor = torch.Tensor

__all__ = ["BeamFrame", "Past", "beam_frame_of", "reordered", "run_beams"]


class Past(NamedTuple):
    """Where rows find what they descend from."""

    writers: Tensor  # Int["R L"]: the row among whose blocks each position of a row lies
    turns: int  # so many were computed; no row has moved further


@dataclass(frozen=True, slots=True)
class BeamFrame:
    """R rows over the same blocks from turn to turn, each of which computes one position a turn, in blocks of its own.

    Moves copy no keys and values: whoever attends gathers them, position by position, from where they were written.
    """

    family: Family
    weights: Weights
    cache: TorchCache
    slots: Tensor  # Int["R L"]: where each position of a row's own blocks lies in the cache, block * BLOCK + place
    begins: dict[int | None, Tensor]  # window -> Int["R 1"]: the first position that is read
    lengths: dict[int | None, int]  # window -> the most positions that a row reads before the first turn
    first: np.ndarray  # Int["R"]: the position that each row computes first; on the host
    ends: np.ndarray  # Int["R"]: and the one that it never reaches
    end: int | None  # all positions are below it; None: unknown
    memories: MemoryLayout | None = None  # of an encoder's; all beams of a group have the same

    def begin(self) -> Past:
        """Each row has written its own past."""
        own = torch.arange(self.slots.shape[0], device=self.slots.device)
        return Past(own[:, None].repeat(1, self.slots.shape[1]), 0)

    def forward(self, last: Tensor, position: Tensor, past: Past) -> tuple[Tensor, Past]:
        """Float["R V"] after the tokens `last` Int["R"] at these positions; their keys and values are written."""
        queries = position.long()[:, None]
        own = torch.arange(len(last), device=queries.device)[:, None]
        writers = past.writers.scatter(1, queries, own)
        layout = self._layout(last, queries, self.slots.gather(0, writers), past.turns)
        (logits,) = computed(self.family, self.weights, layout, self.cache, memories=self.memories)
        return logits, Past(writers, past.turns + 1)

    def _layout(self, last: Tensor, queries: Tensor, places: Tensor, turns: int) -> Layout:
        rows = len(last)
        reaches = {window: self._reach(window, queries, places, turns) for window in self.begins}
        group = Group(rows, 1, None, reaches, (1,) * rows, (self.end or 0,) * rows, tuple(range(rows)))
        own = self.slots.gather(1, queries)[:, 0]
        return Layout(last, queries[:, 0], own, None, None, (group,), None, self.end)

    def _reach(self, window: int | None, queries: Tensor, places: Tensor, turns: int) -> Reach:
        """Whole blocks, as single steps read them."""
        width = places.shape[1]
        count = min(blocks_for(self.lengths[window] + turns + 1) * BLOCK, width)
        keys = self.begins[window] + torch.arange(count, device=queries.device)
        read = places[:, :count] if window is None else places.gather(1, keys.clamp(max=width - 1))
        return Reach(None, sees(queries, keys, window), queries, keys, read)

    def settle(self, past: Past, turns: int) -> None:
        """Brings what the rows descend from to their own blocks, from that of the first position on, with the turns."""
        begin = self.first // BLOCK * BLOCK
        steps = np.arange(int((self.first - begin).max()) + turns)
        columns = np.minimum(begin[:, None] + steps, self.ends[:, None] - 1)
        (there,) = to_device([columns], self.slots.device)
        sources = self.slots.gather(0, past.writers).gather(1, there)
        self.cache.move(sources.reshape(-1), self.slots.gather(1, there).reshape(-1))


def reordered(past: Past, parents: Tensor) -> Past:
    """What the rows have that continue `parents` Int["R"]."""
    return past._replace(writers=past.writers.index_select(0, parents))


@torch.no_grad()
def run_beams(
    family: Family,
    weights: Weights,
    batch: Batch,
    cache: TorchCache,
    form: BeamForm,
    beams: ClosedBeams,
    graphs: Graphs,
) -> list[Made]:
    """What each group chose from; the keys and values of what became of its rows are in the cache then.

    On a CUDA device a turn is replayed as a graph.
    """
    frame = beam_frame_of(family, weights, batch, cache, beams.rows.room.repeat(form.chain.each))
    steer: Steer = partial(steered, most=int(beams.rows.room.max()), ahead=ahead_on(weights.home))
    started = start_beams(graphs, frame, batch, form, beams, reordered, steer)
    if started is None:
        there, loop = beams_there(beams, weights.outside.embed), steer
    else:
        frame, there, loop = started.frame, started.beams, started.loop
    found, past = decode_beams(frame.forward, reordered, frame.begin(), form, there, loop)
    found = found.on_host(functions.to_host)
    frame.settle(past, int(found.turns.max()))
    return made_by(form, found, len(beams.hasty))


def beams_there(beams: ClosedBeams, like: Tensor) -> ClosedBeams:
    """The beams where a tensor is."""
    leaves, rebuild = beam_leaves_of(beams)
    sent = rebuild([functions.asarray(part, str(part.dtype), like=like) for part in leaves])
    return replace(sent, rows=moved(beams.rows, like))


def beam_frame_of(family: Family, weights: Weights, batch: Batch, cache: TorchCache, room: np.ndarray) -> BeamFrame:
    """The frame of a batch whose rows compute so many positions Int["R"] at most; their new blocks are zeroed."""
    windows = tuple(dict.fromkeys(layer.attention.window for layer in family.layers))
    first = batch.first.astype(np.int64)
    tables, _ = blocks_read(batch.tables, first, first + room, None)
    begins = [_begin(first, window) for window in windows]
    new = begun_blocks(batch.tables, first, room)
    own, begun, *starts = to_device([tables, new, *begins], weights.outside.embed.device)
    for layer in range(len(family.layers) if len(new) else 0):
        cache.clear(layer, begun)
    slots = (own[:, :, None] * BLOCK + torch.arange(BLOCK, device=own.device)).flatten(1)
    lengths = {window: int((first - begin[:, 0]).max()) for window, begin in zip(windows, begins, strict=True)}
    there = dict(zip(windows, starts, strict=True))
    memories = memory_layout(batch, own.device)
    ends = first + room
    return BeamFrame(family, weights, cache, slots, there, lengths, first, ends, int(ends.max()), memories)


def _begin(first: np.ndarray, window: int | None) -> np.ndarray:
    """Int["R 1"]: the first position of the first block that a position sees."""
    seen = np.zeros_like(first) if window is None else np.maximum(0, first - window + 1)
    return seen[:, None] // BLOCK * BLOCK
