"""Turns of beam search as a CUDA graph: what a burst of them reads, in tensors of few shapes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch

from fabula.cache.blocks import BLOCK, blocks_for
from fabula.decoding.closed.beam_loop import Reorder, decode_beams
from fabula.decoding.closed.beams import BeamForm, ClosedBeams, beam_leaves_of, padded_beams
from fabula.models.bursts.torch_compiled import STEPS
from fabula.models.bursts.torch_graph import Graphs, Steer, settings
from fabula.models.bursts.torch_inputs import Lines, blocks_of, columns_of, packed, unpacked
from fabula.ops.protocol import Batch

Tensor = torch.Tensor

__all__ = ["StartedBeams", "start_beams"]


class BeamShape(NamedTuple):
    """What bursts have in common whose turns are one, over the same cache and weights."""

    form: BeamForm
    positions: int  # L: that a row has slots for
    columns: int  # S: of an encoder's memories; 0: there are none
    modes: tuple[Hashable, ...]  # PyTorch's
    sizes: tuple[tuple[int, ...], ...]  # of all arrays of the beams


class BeamInputs(NamedTuple):
    """All that differs between bursts of a shape, on the device."""

    packed: tuple[Tensor, ...]  # the leaves of `ClosedBeams`
    slots: Tensor  # Int["R L"], as a frame has it, like the next
    begins: tuple[Tensor, ...]  # of each window
    memories: Lines | tuple[()]

    def frame(self, frame: Any) -> Any:
        """The frame over these, where every turn reads as much as the last one that there may be."""
        length = self.slots.shape[1]
        lengths = {window: length if window is None else window + BLOCK + STEPS for window in frame.begins}
        begins = dict(zip(frame.begins, self.begins, strict=True))
        memories = self.memories.layout() if self.memories else None
        return replace(frame, slots=self.slots, begins=begins, lengths=lengths, end=None, memories=memories)


@dataclass(frozen=True, slots=True)
class StartedBeams:
    """A burst as `decode_beams` takes it, its numbers in place."""

    frame: Any
    beams: ClosedBeams
    loop: Callable[..., Any]  # (condition, body, state) -> the state


def start_beams(
    graphs: Graphs, frame: Any, batch: Batch, form: BeamForm, beams: ClosedBeams, reorder: Reorder, steer: Steer
) -> StartedBeams | None:
    """A burst whose turns are replayed; None where they are launched one by one."""
    most, over = int(beams.rows.room.max()), graphs.over(frame)
    if over is None or most > STEPS:
        return None
    needed = max(frame.slots.shape[1] // BLOCK, blocks_for(beams.rows.tokens.shape[1]))
    positions = blocks_of(needed, int(beams.rows.longest.max())) * BLOCK
    leaves, rebuild = beam_leaves_of(padded_beams(beams, len(beams.hasty), positions))
    sizes = tuple(part.shape for part in leaves)
    shape = BeamShape(form, positions, columns_of(batch.memories), settings(), sizes)
    held = over.held(shape, most)
    if held is None:
        return None
    spare = frame.slots[:, -1:].expand(-1, positions - frame.slots.shape[1])
    lines = Lines.of(batch.memories, shape.columns, frame.slots.device) if shape.columns else ()
    slots = torch.cat([frame.slots, spare], 1)
    inputs: BeamInputs = held.written(BeamInputs(packed(leaves, slots), slots, tuple(frame.begins.values()), lines))
    there, own = rebuild(unpacked(inputs.packed, leaves)), inputs.frame(frame)
    turn = partial(_turn, partial(decode_beams, own.forward, reorder, own.begin(), form, there))

    def loop(condition: Any, body: Any, state: Any) -> Any:
        return held.loop(graphs, steer, most, condition, turn, state)

    return StartedBeams(own, there, loop)


def _turn(decoded: Callable[..., Any], state: Any) -> Any:
    """The state a turn later, with all that `decode_beams` makes before its first: a captured turn makes it anew."""
    found: list[Any] = []

    def once(condition: Any, body: Any, begin: Any) -> Any:
        found.append(body(state))
        return begin

    decoded(loop=once)
    return found[0]
