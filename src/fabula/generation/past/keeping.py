"""What a finished call hands out as `past_key_values`: its rows, as columns of its `sequences`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fabula.cache.kept import KeptRow
from fabula.cache.kinds import CacheKind
from fabula.engine.engine import Engine
from fabula.generation.past.handle import GeneratedPast
from fabula.generation.past.reading import OpenPast
from fabula.generation.prompts.source import Source
from fabula.generation.results.collector import Collector


def keep_rows(
    model: Any,
    engine: Engine,
    kind: CacheKind,
    source: Source,
    opened: OpenPast | None,
    collectors: Sequence[Collector],
) -> GeneratedPast | None:
    """A row for each of `sequences`, all its columns but the last; None where nothing was kept."""
    rows: list[KeptRow] = []
    for collector in collectors:
        if any(kept is None for kept in collector.pasts):
            return None
        rows += [kept for kept in collector.pasts if kept is not None]
    texts = source.texts
    if texts is not None:
        texts = [text for text, one in zip(texts, collectors, strict=True) for _ in one.pasts]
    return GeneratedPast(model, engine, kind, rows, _mask(source, opened, collectors), texts)


def _mask(source: Source, opened: OpenPast | None, collectors: Sequence[Collector]) -> np.ndarray:
    """Bool["R C"]: which columns are tokens."""
    prompts = _prompts(source, opened)
    longest = max(len(steps) for collector in collectors for steps in collector.steps)
    masks = [
        np.concatenate([prompt, np.arange(longest) < len(steps)])
        for prompt, collector in zip(prompts, collectors, strict=True)
        for steps in collector.steps
    ]
    return np.stack(masks)[:, :-1]


def _prompts(source: Source, opened: OpenPast | None) -> Sequence[np.ndarray]:
    """What is padding of each prompt, the columns before it included; ragged prompts are padded on the left."""
    if source.prompts.mask is not None:
        own = source.prompts.mask
    else:
        lengths = np.array([len(row) for row in source.prompts.rows])
        own = np.arange(lengths.max()) >= lengths.max() - lengths[:, None]
    if opened is None or opened.whole:
        return list(own)
    return list(np.concatenate([opened.mask, own], 1))
