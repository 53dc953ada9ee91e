"""What a step's layers share: where its positions lie, and which of its rows attend together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from fabula.cache.blocks import BLOCK
from fabula.ops.protocol import Batch

ALIKE = 0.75  # rows attend together where the shortest has this share of the longest's new positions


@dataclass(frozen=True, slots=True)
class Reach:
    """What the queries of a group may see within one window."""

    tables: torch.Tensor | None  # Int["R B"]: the blocks to read; None: `slots`, or this step's own keys are all
    mask: torch.Tensor | None  # Bool["R|1 N|1 K"]: which query sees which key; None: all, or if causal up to its own
    queries: torch.Tensor  # Int["R|1 N"]: the position of each query
    keys: torch.Tensor  # Int["R|1 K"]: and of each key
    slots: torch.Tensor | None = None  # Int["R K"]: where each key lies, of rows that do not read blocks of their own


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that attend in one call, as a rectangle: R rows of N queries, short ones padded at the end."""

    rows: int  # R
    width: int  # N
    index: torch.Tensor | None  # Int["R*N"]: where each query lies in [0, T); None: they are [0, T) in order
    reaches: dict[int | None, Reach]  # by window
    counts: tuple[int, ...]  # how many of the N queries are the row's own
    lengths: tuple[int, ...]  # how many keys the row has after this step
    order: tuple[int, ...]  # which rows of the batch these are


@dataclass(frozen=True, slots=True)
class Layout:
    """One step's indices, on the device."""

    tokens: torch.Tensor  # Int["T"]
    positions: torch.Tensor  # Int["T"]
    slots: torch.Tensor  # Int["T"]: where each position's key goes in the cache
    begun: torch.Tensor | None  # Int["N"]: blocks that this step begins and does not fill; None: no such
    scored: torch.Tensor | None  # Int["S"]; None: all of [0, T)
    groups: tuple[Group, ...]
    restore: torch.Tensor | None  # Int["T"]: where each position lies in the groups end to end; None: in order
    end: int | None  # all positions are below it; None: unknown


def build_layout(
    batch: Batch, windows: Iterable[int | None], cached: bool, device: torch.device | str, causal: bool = True
) -> Layout:
    """The layout of a batch, computed on the host and brought over in one transfer.

    Rows that do not attend causally are computed whole, without a cache.
    """
    return plan_layout(batch, windows, cached, causal)(device)


def plan_layout(
    batch: Batch, windows: Iterable[int | None], cached: bool, causal: bool = True
) -> Callable[[torch.device | str], Layout]:
    """The layout of a batch on any device, computed once on the host."""
    assert causal or not cached
    counts = np.diff(batch.starts).astype(np.int64)
    rows = np.repeat(np.arange(len(counts)), counts)
    positions = batch.first[rows] + np.arange(len(rows)) - batch.starts[:-1][rows]
    slots = batch.tables[rows, positions // BLOCK].astype(np.int64) * BLOCK + positions % BLOCK if cached else rows[:0]
    begun = _begun(batch, counts) if cached else rows[:0]
    plans = [_plan(batch, counts, group, windows) for group in _alike(counts, batch.first > 0)]
    regular = len(plans) == 1 and plans[0].index.size == len(rows)  # nothing is padded, nothing stands elsewhere
    restore = rows[:0] if regular else _restore(plans, batch.starts, counts)
    arrays = [batch.tokens, positions, slots, begun, batch.scored, restore]
    for plan in plans:
        arrays += [plan.index, plan.queries, *plan.tables.values(), *plan.starts.values()]
    whole = len(batch.scored) == len(rows) and np.array_equal(batch.scored, np.arange(len(rows)))
    end = int((batch.first + counts).max(initial=0))

    def there(device: torch.device | str) -> Layout:
        moved = iter(to_device(arrays, device))
        tokens, places, slots_there, begun_there, scored, back = (next(moved) for _ in range(6))
        return Layout(
            tokens,
            places,
            slots_there,
            begun_there if len(begun) else None,
            None if whole else scored,
            tuple(_group(plan, moved, regular, causal) for plan in plans),
            None if regular else back,
            end,
        )

    return there


def at_positions(layout: Layout, positions: torch.Tensor) -> Layout:
    """The layout with other positions, Int["T"]; distances within this step follow them, what is seen does not."""

    def moved(group: Group) -> Group:
        places = (positions if group.index is None else positions[group.index]).view(group.rows, group.width)
        reaches = {
            window: reach if reach.tables is not None else replace(reach, queries=places, keys=places)
            for window, reach in group.reaches.items()
        }
        return replace(group, reaches=reaches)

    return replace(layout, positions=positions, groups=tuple(moved(group) for group in layout.groups), end=None)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A group on the host."""

    order: np.ndarray  # Int["R"]: rows of the batch
    counts: np.ndarray  # Int["R"]
    lengths: np.ndarray  # Int["R"]
    index: np.ndarray  # Int["R N"]
    queries: np.ndarray  # Int["R N"]: the position of each query; a padded one repeats the row's last
    tables: dict[int | None, np.ndarray]  # by window, Int["R B"]; empty where no row has keys in the cache
    starts: dict[int | None, np.ndarray]  # by window, Int["R 1"]: the position of the first key that is read
    windows: tuple[int | None, ...]


def _begun(batch: Batch, counts: np.ndarray) -> np.ndarray:
    """The blocks whose first position is among this step's, and whose last is not."""
    ends = batch.first + counts
    last = (ends - 1) // BLOCK
    rows = np.flatnonzero((counts > 0) & (ends % BLOCK != 0) & (last * BLOCK >= batch.first))
    return batch.tables[rows, last[rows]]


def _alike(counts: np.ndarray, old: np.ndarray) -> list[np.ndarray]:
    """The rows in groups: with or without keys in the cache, and of about the same number of new positions."""
    if len(counts) and counts[0] and (counts == counts[0]).all() and (old == old[0]).all():
        return [np.arange(len(counts))]
    groups = []
    for kind in (False, True):
        rows = np.flatnonzero(old == kind)
        rows = rows[np.argsort(-counts[rows], kind="stable")]
        while len(rows):
            together = int(np.sum(counts[rows] >= max(1, ALIKE * counts[rows[0]])))
            if not together:
                break  # rows without new positions
            groups.append(np.sort(rows[:together]))
            rows = rows[together:]
    return groups


def _plan(batch: Batch, counts: np.ndarray, order: np.ndarray, windows: Iterable[int | None]) -> _Plan:
    width = int(counts[order].max())
    columns = np.minimum(np.arange(width), counts[order][:, None] - 1)
    first = batch.first[order].astype(np.int64)
    lengths = first + counts[order]
    tables, starts = {}, {}
    if first.any():
        for window in windows:
            tables[window], starts[window] = blocks_read(batch.tables[order], first, lengths, window)
    return _Plan(
        order,
        counts[order],
        lengths,
        batch.starts[order][:, None] + columns,
        first[:, None] + columns,
        tables,
        starts,
        tuple(windows),
    )


def blocks_read(
    tables: np.ndarray, first: np.ndarray, lengths: np.ndarray, window: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The blocks that positions [first, length) of each row see, Int["R B"], and where the first begins, Int["R 1"]."""
    begin = first_blocks(first, window)
    blocks = -(-lengths // BLOCK) - begin
    place = begin[:, None] + np.arange(int(blocks.max()))
    # Short rows repeat their last block, which nobody sees again: another row's could hold anything.
    own = np.minimum(place, (begin + blocks)[:, None] - 1)
    return np.take_along_axis(tables, own, 1), begin[:, None] * BLOCK


def first_blocks(first: np.ndarray, window: int | None) -> np.ndarray:
    """Int["R"]: the first of its blocks that a row reads whose first new position, Int["R"], is this."""
    return np.zeros_like(first) if window is None else np.maximum(0, first - window + 1) // BLOCK


def _restore(plans: list[_Plan], starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """For each of the T positions, where it lies in the rectangles laid end to end."""
    restore = np.zeros(int(starts[-1]), np.int64)
    place = 0
    for plan in plans:
        own = np.arange(plan.index.shape[1]) < plan.counts[:, None]
        places = place + np.arange(plan.index.size).reshape(plan.index.shape)
        restore[plan.index[own]] = places[own]
        place += plan.index.size
    return restore


def to_device(arrays: list[np.ndarray], device: torch.device | str) -> list[torch.Tensor]:
    """The arrays as int64 tensors, sent as one where they have to be sent."""
    if torch.device(device).type == "cpu":
        return [torch.from_numpy(array.astype(np.int64)) for array in arrays]
    flat = torch.from_numpy(np.concatenate([array.reshape(-1).astype(np.int64) for array in arrays])).to(device)
    pieces = flat.split([array.size for array in arrays])
    return [piece.view(array.shape) for piece, array in zip(pieces, arrays, strict=True)]


def _group(plan: _Plan, moved: Iterable[torch.Tensor], regular: bool, causal: bool) -> Group:
    """The group whose arrays come next, in the order in which `build_layout` sent them."""
    arrays = iter(moved)
    index, queries = next(arrays), next(arrays)
    tables = {window: next(arrays) for window in plan.tables}
    starts = {window: next(arrays) for window in plan.starts}
    reaches = {}
    for window in plan.windows:
        if tables:
            keys = starts[window] + torch.arange(tables[window].shape[1] * BLOCK, device=index.device)
            reaches[window] = Reach(tables[window], sees(queries, keys, window), queries, keys)
        else:
            width = plan.index.shape[1]
            near = window is None or width <= window
            places = torch.arange(width, device=index.device)[None]
            if causal:
                mask = None if near else sees(places, places, window)
            else:  # the last query's position is the row's last
                mask = None if (plan.counts == width).all() else places[:, None] <= queries[:, -1:, None]
            reaches[window] = Reach(None, mask, places, places)
    rows, width = plan.index.shape
    return Group(
        rows,
        width,
        None if regular else index.view(-1),
        reaches,
        tuple(plan.counts.tolist()),
        tuple(plan.lengths.tolist()),
        tuple(plan.order.tolist()),
    )


def sees(queries: torch.Tensor, keys: torch.Tensor, window: int | None) -> torch.Tensor:
    """Bool["R N K"]: whether the query at position p sees the key at position k: p - window < k <= p."""
    seen = keys[:, None, :] <= queries[:, :, None]
    return seen if window is None else seen & (keys[:, None, :] > queries[:, :, None] - window)
