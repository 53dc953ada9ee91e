"""What an encoder leaves for a decoder in PyTorch, and how the rows of a step find their part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fabula.errors import ArgumentError
from fabula.ops.protocol import Batch
from fabula.ops.specs import AttentionSpec
from fabula.ops.torch_attention import attend_rectangle
from fabula.ops.torch_layout import to_device


@dataclass(frozen=True, eq=False, slots=True)
class Memories:
    """What each decoder layer reads of an encoder's output for M inputs of S columns."""

    keys: tuple[torch.Tensor, ...]  # of each layer: Float["M S kv_heads head_dim"]
    values: tuple[torch.Tensor, ...]
    mask: torch.Tensor | None  # Bool["M S"]: which columns are tokens; None: all

    def __len__(self) -> int:
        return self.keys[0].shape[0]

    def each(self) -> list[Memory]:
        """One for each input."""
        return [Memory(self, index) for index in range(len(self))]


@dataclass(frozen=True, eq=False, slots=True)
class Memory:
    """One input's part; all rows that continue from that input share it."""

    of: Memories
    index: int


@dataclass(frozen=True, slots=True)
class Readers:
    """The rows of a step that read what was encoded together, as a rectangle: one line for each input that is read."""

    memories: Memories
    lines: torch.Tensor | None  # Int["M'"]: which inputs; None: all, in order
    mask: torch.Tensor | None  # Bool["M' 1 1 S"]; None: all columns are tokens
    index: torch.Tensor  # Int["M' N"]: where each query lies in [0, T); short lines repeat their first
    rows: tuple[tuple[int, int, int, int], ...]  # (row of the batch, its line, its first query there, their number)


@dataclass(frozen=True, slots=True)
class MemoryLayout:
    """Who reads what in one step."""

    readers: tuple[Readers, ...]
    restore: torch.Tensor | None  # Int["T"]: where each position lies in the rectangles end to end; None: one, in order


def memory_layout(batch: Batch, device: torch.device | str) -> MemoryLayout | None:
    """The layout of a batch whose rows have memories; None for a batch without any. Raises ArgumentError for others."""
    if not batch.memories:
        return None
    counts, together = np.diff(batch.starts), dict[int, tuple[Memories, list[int]]]()
    for row, memory in enumerate(batch.memories):
        if not isinstance(memory, Memory):
            raise ArgumentError(
                f"a row's memory must be what `encode` of its model returned, got {type(memory).__name__}."
            )
        if counts[row]:
            together.setdefault(id(memory.of), (memory.of, []))[1].append(row)
    plans = [_plan(batch, counts, memories, rows) for memories, rows in together.values()]
    restore = np.zeros(int(batch.starts[-1]), np.int64)
    place = 0
    for _, index, rows in plans:
        for row, line, begin, count in rows:
            start = int(batch.starts[row])
            restore[start : start + count] = place + line * index.shape[1] + begin + np.arange(count)
        place += index.size
    regular = len(plans) == 1 and place == len(restore) and np.array_equal(restore, np.arange(place))
    moved = to_device([restore, *(array for lines, index, _ in plans for array in (lines, index))], device)
    readers = [
        _readers(memories, plan, moved[2 * i + 1], moved[2 * i + 2])
        for i, ((memories, _), plan) in enumerate(zip(together.values(), plans, strict=True))
    ]
    return MemoryLayout(tuple(readers), None if regular else moved[0])


_Plan = tuple[np.ndarray, np.ndarray, list[tuple[int, int, int, int]]]  # lines, index and rows, as in `Readers`


def _plan(batch: Batch, counts: np.ndarray, memories: Memories, rows: Sequence[int]) -> _Plan:
    """Every input has a line where most are read, so that nothing is copied; else those that are."""
    used = sorted({batch.memories[row].index for row in rows})
    lines = np.arange(len(memories)) if 2 * len(used) >= len(memories) else np.array(used, np.int64)
    line_of = {int(each): line for line, each in enumerate(lines)}
    queries: list[list[int]] = [[] for _ in lines]
    placed = []
    for row in rows:
        count, start = int(counts[row]), int(batch.starts[row])
        line = line_of[batch.memories[row].index]
        placed.append((row, line, len(queries[line]), count))
        queries[line] += range(start, start + count)
    index = np.zeros((len(lines), max(map(len, queries))), np.int64)
    for line, each in enumerate(queries):
        index[line, : len(each)] = each
    return lines, index, placed


def _readers(memories: Memories, plan: _Plan, lines: torch.Tensor, index: torch.Tensor) -> Readers:
    chosen = None if len(plan[0]) == len(memories) else lines
    mask = memories.mask
    if mask is not None:
        mask = mask.to(index.device)
        mask = (mask if chosen is None else mask.index_select(0, chosen))[:, None, None]
    return Readers(memories, chosen, mask, index, tuple(plan[2]))


def attend_memories(
    layout: MemoryLayout, spec: AttentionSpec, layer: int, q: torch.Tensor, tapped: bool
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """What q [T, heads * head_dim] gathers; if tapped, also each row's weights, Float["heads new S"]."""
    heads = q.view(len(q), -1, spec.head_dim)
    parts, found = [], {}
    for readers in layout.readers:
        k, v = (
            each[layer] if readers.lines is None else each[layer].index_select(0, readers.lines)
            for each in (readers.memories.keys, readers.memories.values)
        )
        queries = heads if layout.restore is None else heads.index_select(0, readers.index.view(-1))
        queries = queries.view(*readers.index.shape, *heads.shape[1:])
        out, weights = attend_rectangle(queries, k, v, spec, readers.mask, tapped)
        parts.append(out.reshape(readers.index.numel(), -1))
        if weights is not None:
            for row, line, begin, count in readers.rows:
                found[row] = weights[line, :, begin : begin + count]
    flat = parts[0] if len(parts) == 1 else torch.cat(parts)
    flat = flat if layout.restore is None else flat.index_select(0, layout.restore)
    return flat, tuple(found[row] for row in sorted(found))
