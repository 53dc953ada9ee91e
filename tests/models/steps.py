"""Drives a backend's `step` through any chunking of ragged rows, as the engine would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fabula.cache.blocks import BLOCK, blocks_for
from fabula.ops.protocol import NO_TAPS, Batch, Taps

Chunks = Callable[[int], int]  # how many of the missing positions the next step computes
CHUNKS: dict[str, Chunks] = {
    "whole rows at once": lambda missing: missing,
    "one position at a time": lambda missing: 1,
    "seven at a time": lambda missing: 7,
    "a prompt, then one at a time": lambda missing: missing - 8 if missing > 12 else 1,
}


def stepped_logits(
    model: Any, rows: list[list[int]], chunk: Chunks, seed: int = 0, memories: Sequence[Any] = ()
) -> list[np.ndarray]:
    """For each row Float["L V"]: the logits of all its positions, computed in chunks, rows mixed at random."""
    random = np.random.default_rng(seed)
    tables, blocks = shuffled_tables(rows, random)
    cache = model.new_cache(blocks)
    computed = [0] * len(rows)
    found: list[list[np.ndarray]] = [[] for _ in rows]
    while any(done < len(row) for done, row in zip(computed, rows, strict=True)):
        missing = [i for i, row in enumerate(rows) if computed[i] < len(row)]
        chosen = [i for i in missing if random.random() < 0.7] or missing[:1]
        random.shuffle(chosen)
        counts = [min(len(rows[i]) - computed[i], max(1, chunk(len(rows[i]) - computed[i]))) for i in chosen]
        batch = make_batch(rows, chosen, computed, counts, tables)
        if memories:
            batch = replace(batch, memories=[memories[i] for i in chosen])
        logits = np.asarray(model.step(batch, cache).logits).copy()
        for i, count, start in zip(chosen, counts, batch.starts, strict=False):
            found[i].append(logits[start : start + count])
            computed[i] += count
    return [np.concatenate(parts) for parts in found]


def shuffled_tables(rows: list[list[int]], random: np.random.Generator) -> tuple[np.ndarray, int]:
    """Blocks for every row in no order, and how many there are."""
    needed = [blocks_for(len(row)) for row in rows]
    free = random.permutation(sum(needed) + 2).tolist()
    tables = np.zeros((len(rows), max(needed)), np.int32)
    for row, count in enumerate(needed):
        tables[row, :count] = [free.pop() for _ in range(count)]
    return tables, sum(needed) + 2


def make_batch(
    rows: list[list[int]], chosen: list[int], computed: list[int], counts: list[int], tables: np.ndarray
) -> Batch:
    """The batch that computes `counts` more positions of the chosen rows, all scored."""
    pieces = [rows[i][computed[i] : computed[i] + count] for i, count in zip(chosen, counts, strict=True)]
    width = max(1, max(-(-(computed[i] + count) // BLOCK) for i, count in zip(chosen, counts, strict=True)))
    return Batch(
        tokens=np.array([token for piece in pieces for token in piece], np.int32),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        first=np.array([computed[i] for i in chosen], np.int32),
        tables=np.ascontiguousarray(tables[chosen][:, :width]),
        scored=np.arange(sum(counts), dtype=np.int32),
    )


def tapped_step(model: Any, rows: list[list[int]], taps: Taps = NO_TAPS) -> Any:
    """The Forward of one step that computes whole rows."""
    tables, blocks = shuffled_tables(rows, np.random.default_rng(0))
    counts = [len(row) for row in rows]
    batch = make_batch(rows, list(range(len(rows))), [0] * len(rows), counts, tables)
    return model.step(batch, model.new_cache(blocks), taps)


def relative_error(ours: Any, reference: Any) -> float:
    """The largest difference over the largest number."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    return float(np.abs(ours - reference).max() / np.abs(reference).max())
