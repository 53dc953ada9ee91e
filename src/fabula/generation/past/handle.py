"""`past_key_values` of generate(): a handle on rows that a model's engine keeps, and what was computed of them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fabula import arrays
from fabula.cache.kept import KeptRow
from fabula.cache.kinds import CacheKind
from fabula.decoding.recipe import Limits, Recipe, Record
from fabula.engine.engine import Engine
from fabula.engine.request import Request
from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.results.collector import Collector
from fabula.processors.processor import LogitsProcessorList

__all__ = ["GeneratedPast", "KeysAndValues", "dense_layers"]


class KeysAndValues(NamedTuple):
    """Those of a layer, each Float["R heads C features"]."""

    keys: Any
    values: Any


class GeneratedPast:
    """R rows of C columns, as `sequences` has them but for the last column, which nothing was computed from yet.

    Rows are never written: a call that continues them returns a handle of its own, and any number of calls may
    continue the same one. Their blocks are the engine's again when no handle has them. An engine that runs out of
    blocks takes them earlier; then the next call computes the tokens, which are remembered, again.
    """

    def __init__(
        self,
        model: Any,
        engine: Engine,
        kind: CacheKind,
        rows: Sequence[KeptRow],
        mask: np.ndarray,
        texts: Sequence[np.ndarray] | None = None,
    ) -> None:
        """`mask` Bool["R C"]: which columns are tokens; `texts`: what each row's encoder read."""
        self.model = weakref.ref(model)
        self.engine = engine
        self.kind = kind
        self.kept = list(rows)
        self.mask = mask
        self.texts = None if texts is None else list(texts)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.kept)

    @property
    def lengths(self) -> np.ndarray:
        """Int["R"]: how many tokens each row has, padding not counted."""
        return self.mask.sum(1).astype(np.int32)

    @property
    def computed(self) -> np.ndarray:
        """Int["R"]: how many of them a call that continues need not compute."""
        return np.minimum(self.lengths, [row.computed for row in self.kept]).astype(np.int32)

    @property
    def tokens(self) -> list[np.ndarray]:
        """Each row's tokens, Int["L"]."""
        return [row.tokens[:length] for row, length in zip(self.kept, self.lengths, strict=True)]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many columns there are, padding included."""
        return self.mask.shape[1]

    def crop(self, max_length: int) -> None:
        """Drops -max_length columns where it is negative; keeps the first max_length where it is positive."""
        if max_length == 0:
            return
        kept = max_length if max_length > 0 else max(0, self.get_seq_length() + max_length)
        self.mask = self.mask[:, :kept]

    def reorder_cache(self, beam_idx: Sequence[int]) -> None:
        """Row i becomes what row beam_idx[i] was; there may be more or fewer than before."""
        order = [int(index) for index in beam_idx]
        if any(not 0 <= index < self.rows for index in order):
            raise ArgumentError(f"beam_idx must hold rows in [0, {self.rows}), got {order}. Count rows from 0.")
        self.kept = [self.kept[index] for index in order]
        self.mask = self.mask[order]
        if self.texts is not None:
            self.texts = [self.texts[index] for index in order]

    batch_select_indices = reorder_cache

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row becomes so many, one behind the other."""
        self.reorder_cache([row for row in range(self.rows) for _ in range(repeats)])

    def row(self, index: int) -> tuple[np.ndarray, list[tuple[Any, Any]]]:
        """A row's tokens, Int["L"], and each layer's keys and values, Float["L heads features"].

        What was not computed, or was given up, is computed now. Raises NotSupportedError where a model keeps none.
        """
        kept, length = self.kept[index], int(self.lengths[index])
        if not hasattr(self.engine.storage, "read_row"):
            raise NotSupportedError("`past_key_values` of a module with a cache of its own holds tokens only.")
        while True:
            with self.engine.alone():
                storage: Any = self.engine.storage
                if kept.table.pool is self.engine.pool and kept.computed >= length and kept.table.behind == 0:
                    blocks = kept.table.blocks
                    layers = range(len(storage.heads))
                    return kept.tokens[:length], [storage.read_row(layer, blocks, length) for layer in layers]
            if kept.table.behind:
                raise NotSupportedError("`past_key_values` of windowed layers has the window only. Pass ids instead.")
            kept = self._computed(kept, length)

    def to_dense(self) -> tuple[KeysAndValues, ...]:
        """Each layer's keys and values, Float["R heads C features"], zero where there is padding; copies."""
        return dense_layers([self.row(index)[1] for index in range(self.rows)], self.mask)

    @property
    def layers(self) -> tuple[KeysAndValues, ...]:
        """What to_dense() gives: `layers[0].keys` is a copy."""
        return self.to_dense()

    def _computed(self, kept: KeptRow, length: int) -> KeptRow:
        """The row once more, with so many of its tokens computed."""
        prompt = np.append(kept.tokens[:length], 0).astype(np.int32)
        recipe = Recipe(LogitsProcessorList(), Limits(length + 2), record=Record(past=True))
        sink = Collector(1)
        self.engine.run([Request(prompt, recipe, sink, salt=None, memory=kept.memory, vectors=kept.vectors)])
        if sink.error is not None:
            raise sink.error
        assert sink.pasts[0] is not None
        return sink.pasts[0]

    def __len__(self) -> int:
        """How many layers there are."""
        return len(getattr(self.engine.storage, "heads", ()))

    def __getitem__(self, layer: int) -> KeysAndValues:
        return self.to_dense()[layer]

    def __iter__(self) -> Iterator[KeysAndValues]:
        return iter(self.to_dense())

    def __copy__(self) -> GeneratedPast:
        """Another handle on the same rows, to be cropped and reordered apart."""
        model = self.model()
        assert model is not None
        return GeneratedPast(model, self.engine, self.kind, self.kept, self.mask, self.texts)

    def __deepcopy__(self, memo: Any) -> GeneratedPast:
        return self.__copy__()

    def __reduce__(self) -> Any:
        """Blocks of an engine do not travel: where it is unpickled there is nothing to continue."""
        return type(None), ()

    def __repr__(self) -> str:
        return f"GeneratedPast({self.rows} rows, {self.get_seq_length()} columns)"


def dense_layers(rows: Sequence[Sequence[tuple[Any, Any]]], mask: np.ndarray) -> tuple[KeysAndValues, ...]:
    """Each layer's keys and values as rectangles, of each row's own, Float["L heads features"] a layer.

    `mask` Bool["R C"] says which columns are the L tokens; the others are zero.
    """
    return tuple(
        KeysAndValues(*(_rectangle([row[layer][part] for row in rows], mask) for part in (0, 1)))
        for layer in range(len(rows[0]))
    )


def _rectangle(parts: Sequence[Any], masks: np.ndarray) -> Any:
    xp, rows = arrays.of(parts[0]), []
    for part, mask in zip(parts, masks, strict=True):
        if not mask.any():
            rows.append(xp.zeros((len(mask), *part.shape[1:]), "float32", like=part))
            continue
        places = np.maximum(np.cumsum(mask) - 1, 0).astype(np.int32)
        spread = xp.take(part, xp.asarray(places, "int32", like=part))
        rows.append(xp.where(xp.asarray(mask[:, None, None], "bool", like=part), spread, spread * 0))
    heads = range(rows[0].shape[1])
    by_head = [xp.concat([row[None, None, :, head] for head in heads], axis=1) for row in rows]
    return xp.concat(by_head, axis=0)
