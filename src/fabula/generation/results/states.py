"""Hidden states and attention weights as rectangles: a step's, a layer's, all rows'; zero where there is padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fabula import arrays
from fabula.generation.prompts.rows import Prompts
from fabula.generation.results.collector import Collector

# (values, queries, keys) -> a rectangle of the last of the values: a row that ended with its first token repeats one
Placed = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def hidden_states(prompts: Prompts, collectors: Sequence[Collector], beams: int) -> tuple[tuple[Any, ...], ...]:
    """A step: a layer: Float["R S D"], S the prompts' columns at the first step, then 1. R counts `beams` a prompt."""

    def placed(values: np.ndarray, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
        out = np.zeros((len(queries), values.shape[-1]), values.dtype)
        out[queries] = values[-queries.sum() :]
        return out

    return _rectangles(prompts, collectors, beams, "hidden_states", placed)


def attentions(prompts: Prompts, collectors: Sequence[Collector], beams: int) -> tuple[tuple[Any, ...], ...]:
    """A step: a layer: Float["R heads S K"], K the columns of prompt and text up to the step."""

    def placed(values: np.ndarray, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
        out = np.zeros((values.shape[0], len(queries), len(keys)), values.dtype)
        places = np.flatnonzero(queries)[:, None], np.flatnonzero(keys)[: values.shape[-1]]
        out[:, *places] = values[:, -queries.sum() :]
        return out

    return _rectangles(prompts, collectors, beams, "attentions", placed)


def cross_attentions(prompts: Prompts, collectors: Sequence[Collector], beams: int) -> tuple[tuple[Any, ...], ...]:
    """A step: a layer: Float["R heads S K"], K the encoder's columns."""

    def placed(values: np.ndarray, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
        out = np.zeros((values.shape[0], len(queries), values.shape[-1]), values.dtype)
        out[:, np.flatnonzero(queries)] = values[:, -queries.sum() :]
        return out

    return _rectangles(prompts, collectors, beams, "cross_attentions", placed)


def _rectangles(
    prompts: Prompts, collectors: Sequence[Collector], beams: int, kind: str, placed: Placed
) -> tuple[tuple[Any, ...], ...]:
    masks = _masks(prompts)
    kept = [_kept(collector, kind, beams) for collector in collectors]
    like = np.zeros(0) if prompts.given is None else prompts.given
    xp, steps = arrays.of(like), max(len(row) for rows in kept for row in rows)

    def layer(step: int, index: int) -> Any:
        found = []
        for mask, rows in zip(masks, kept, strict=True):
            keys = np.concatenate([mask, np.ones(step, bool)])
            for row in rows:
                values = row[min(step, len(row) - 1)][index]
                host = arrays.of(values).to_host(values)
                found.append(placed(host, mask if step == 0 else np.ones(1, bool), keys))
        return xp.asarray(np.stack(found), "float32", like=like)

    return tuple(tuple(layer(step, index) for index in range(len(kept[0][0][0]))) for step in range(steps))


def _masks(prompts: Prompts) -> list[np.ndarray]:
    """Bool["L"] a prompt: which of its columns are tokens; ragged prompts are padded on the left."""
    if prompts.mask is not None:
        return list(prompts.mask)
    longest = max(len(row) for row in prompts.rows)
    return [np.arange(longest) >= longest - len(row) for row in prompts.rows]


def _kept(collector: Collector, kind: str, beams: int) -> list[list[Any]]:
    """A row, a step: what was kept. A row that took over another's prompt shows that one's first step."""
    if collector.turns:
        turns = [getattr(turn, kind) for turn in collector.turns]
        return [[turn[row if len(turn) > 1 else 0] for turn in turns] for row in range(beams)]
    rows = [[getattr(step.kept, kind)[0] for step in steps] for steps in collector.steps]
    return [[rows[0][0], *row[1:]] for row in rows]
