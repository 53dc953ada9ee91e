"""What a burst of rows reads, in tensors of few shapes, so that one captured step is replayed in many bursts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from fabula.arrays import numpy as host
from fabula.arrays import torch as functions
from fabula.cache.blocks import BLOCK, blocks_for
from fabula.decoding.closed.loop import Choose, chooser, keys_of
from fabula.decoding.closed.rows import ClosedRows, Form, leaves_of, padded
from fabula.models.bursts.torch_compiled import STEPS, widened
from fabula.models.bursts.torch_graph import Graphs, Steer, settings
from fabula.ops.protocol import Batch
from fabula.ops.rectangles import LEAST_BLOCKS, bucket
from fabula.ops.torch_layout import to_device
from fabula.ops.torch_memory import Memories, Memory, MemoryLayout, Readers

Tensor = torch.Tensor

__all__ = ["Inputs", "Lines", "Shape", "Started", "blocks_of", "columns_of", "packed", "start", "unpacked"]

FEW = 16  # blocks that tables have from the first burst on, if a text may become so long
LEAST_COLUMNS = 16  # of an encoder's memory


class Shape(NamedTuple):
    """What bursts have in common whose steps are one, over the same cache and weights."""

    form: Form
    steps: int  # K: that a row has slots for
    blocks: int  # B
    columns: int  # S: of an encoder's memories; 0: there are none
    modes: tuple[Hashable, ...]  # PyTorch's
    sizes: tuple[tuple[int, ...], ...]  # of all arrays of the rows

    @classmethod
    def of(cls, batch: Batch, form: Form, rows: ClosedRows) -> tuple[Shape, ClosedRows]:
        """A burst's, whose batch is its first step's, and its rows in it: R as they are, the rest in powers of two."""
        ends = batch.first + rows.room.repeat(form.each)
        needed = blocks_for(int(max(ends.max(), rows.tokens.shape[1])))
        blocks = blocks_of(needed, int(rows.longest.max()))
        steps = max(STEPS, bucket(int(rows.room.max())))
        wide = padded(rows, len(rows.room), blocks * BLOCK)
        sizes = tuple(part.shape for part in leaves_of(wide)[0])
        return cls(form, steps, blocks, columns_of(batch.memories), settings(), sizes), wide

    def width(self, window: int | None, blocks: int) -> int:
        """How many blocks a row's table has for layers of a window."""
        needed = self.blocks if window is None else bucket(blocks_for(window + self.steps) + 1)
        return min(self.blocks, needed)


@dataclass(frozen=True, slots=True)
class Started:
    """A burst as `decode` takes it, its numbers in place."""

    frame: Any
    rows: ClosedRows
    choose: Choose
    loop: Callable[..., Any]  # (condition, body, state) -> the state
    turns: int  # for which there is room in what is kept of them


def start(graphs: Graphs, frame: Any, batch: Batch, form: Form, rows: ClosedRows, steer: Steer) -> Started | None:
    """A burst whose steps are replayed; None where they are launched one by one, or compiled by torch.compile."""
    over = None if form.compiled is not None or frame.others else graphs.over(frame)
    if over is None:
        return None
    (shape, wide), most = Shape.of(batch, form, rows), int(rows.room.max())
    held = over.held(shape, most)
    if held is None:
        return None
    leaves, rebuild = leaves_of(wide)
    parts = [*leaves, *(keys_of(host, form, wide) or ())]
    inputs: Inputs = held.written(Inputs.of(frame, batch, parts, shape))
    sent = unpacked(inputs.packed, parts)
    there, keys = rebuild(sent), sent[len(leaves) :]
    choose = chooser(functions, form, there, (keys[0], keys[1]) if keys else None)
    return Started(inputs.frame(frame), there, choose, partial(held.loop, graphs, steer, most), shape.steps)


class Inputs(NamedTuple):
    """All that differs between bursts of a shape, on the device."""

    packed: tuple[Tensor, ...]  # the leaves of `ClosedRows`, and the keys of the rows' draws
    first: Tensor  # Int["M 1"], as a frame has it, like the next two
    slots: Tensor  # Int["M K"]
    reaches: tuple[tuple[Tensor, Tensor], ...]  # of each window
    memories: Lines | tuple[()]

    @classmethod
    def of(cls, frame: Any, batch: Batch, parts: Sequence[np.ndarray], shape: Shape) -> Inputs:
        """A burst's; `parts`: what is packed."""
        wide = widened(frame, shape.steps, shape.width)
        return cls(
            packed(parts, wide.slots),
            wide.first,
            wide.slots,
            tuple(wide.reaches.values()),
            Lines.of(batch.memories, shape.columns, wide.slots.device) if shape.columns else (),
        )

    def frame(self, frame: Any) -> Any:
        """The frame with these in place of its own."""
        reaches = dict(zip(frame.reaches, self.reaches, strict=True))
        memories = self.memories.layout() if self.memories else None
        return replace(frame, first=self.first, slots=self.slots, reaches=reaches, end=None, memories=memories)


class Lines(NamedTuple):
    """What an encoder left, a line a row, wherever the rows' texts were encoded."""

    keys: tuple[Tensor, ...]  # of each layer Float["R S kv_heads head_dim"]
    values: tuple[Tensor, ...]
    mask: Tensor  # Bool["R S"]: which columns are tokens

    @classmethod
    def of(cls, memories: Sequence[Memory], columns: int, device: torch.device) -> Lines:
        """The rows' over so many columns."""
        together: dict[int, list[tuple[int, Memory]]] = {}
        for row, memory in enumerate(memories):
            together.setdefault(id(memory.of), []).append((row, memory))
        sources = [pairs[0][1].of for pairs in together.values()]
        places = [np.array([(row, one.index) for row, one in pairs]) for pairs in together.values()]
        indices = to_device([column for pairs in places for column in pairs.T], device)

        def laid(parts: Sequence[Tensor]) -> Tensor:
            wide = parts[0].new_zeros((len(memories), columns, *parts[0].shape[2:]))
            for part, rows, lines in zip(parts, indices[::2], indices[1::2], strict=True):
                wide.narrow(1, 0, part.shape[1]).index_copy_(0, rows, part.index_select(0, lines))
            return wide

        keys = tuple(laid(parts) for parts in zip(*(of.keys for of in sources), strict=True))
        values = tuple(laid(parts) for parts in zip(*(of.values for of in sources), strict=True))
        return cls(keys, values, laid([_mask(of, device) for of in sources]))

    def layout(self) -> MemoryLayout:
        """Each row reads its own."""
        rows = len(self.mask)
        index = torch.arange(rows, device=self.mask.device)[:, None]
        own = tuple((row, row, 0, 1) for row in range(rows))
        memories = Memories(self.keys, self.values, self.mask)
        return MemoryLayout((Readers(memories, None, self.mask[:, None, None], index, own),), None)


def packed(parts: Sequence[np.ndarray], like: Tensor) -> tuple[Tensor, ...]:
    """All arrays of each type end to end, where a tensor is: one transfer a type."""
    joined = [np.concatenate([part.reshape(-1) for part in parts if part.dtype == kind]) for kind in _kinds(parts)]
    return tuple(functions.asarray(part, str(part.dtype), like=like) for part in joined)


def unpacked(tensors: Sequence[Tensor], parts: Sequence[np.ndarray]) -> list[Tensor]:
    """The arrays that were packed, as views."""
    kinds = _kinds(parts)
    pieces = {
        kind: iter(tensor.split([part.size for part in parts if part.dtype == kind]))
        for kind, tensor in zip(kinds, tensors, strict=True)
    }
    return [next(pieces[part.dtype]).view(part.shape) for part in parts]


def _kinds(parts: Sequence[np.ndarray]) -> list[np.dtype]:
    """Their types."""
    return list(dict.fromkeys(part.dtype for part in parts))


def _mask(memories: Memories, device: torch.device) -> Tensor:
    """Bool["M S"]."""
    if memories.mask is None:
        return torch.ones(memories.keys[0].shape[:2], dtype=torch.bool, device=device)
    return memories.mask.to(device)


def columns_of(memories: Sequence[Memory]) -> int:
    """Over how many columns they are laid; 0 where there are none."""
    widest = max((memory.of.keys[0].shape[1] for memory in memories), default=0)
    return bucket(widest, LEAST_COLUMNS) if widest else 0


def blocks_of(needed: int, longest: int) -> int:
    """How many blocks tables have for rows that need so many now, and may become so long.

    A text of up to FEW blocks has all of them from its first burst on, so that one shape serves it to its end.
    """
    return bucket(max(needed, min(blocks_for(longest), FEW)), LEAST_BLOCKS)
