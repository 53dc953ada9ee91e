"""`past_key_values`: the rows of a rectangle that was computed so far, and their blocks in a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fabula.cache.blocks import BlockPool, Table
from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.past.handle import GeneratedPast, KeysAndValues, dense_layers
from fabula.generation.past.made_caches import Cache


class Past:
    """R rows. Columns count padding, as the caller sees them; lengths do not, as the cache does.

    `model(...)` writes into it: what is handed in and what comes back are the same object.
    """

    def __init__(self, cache: Any, rows: int) -> None:
        """`cache`: a backend's storage, all of which is this object's."""
        self.cache = cache
        self.pool = BlockPool(cache.blocks)
        self.tables = [Table(self.pool) for _ in range(rows)]
        self.mask = np.zeros((rows, 0), bool)  # Bool["R columns"]: which columns are tokens
        self.tokens = np.zeros((rows, 0), np.int32)  # Int["R columns"]: which, or UNKNOWN

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.tables)

    @property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """For each layer its key heads and the features of one."""
        return tuple(self.cache.heads)

    @property
    def lengths(self) -> np.ndarray:
        """Int["R"]: how many positions of each row are in the cache."""
        return self.mask.sum(1).astype(np.int32)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many columns there are, padding included."""
        return self.mask.shape[1]

    def row(self, index: int) -> tuple[np.ndarray, list[tuple[Any, Any]]]:
        """A row's tokens, Int["L"], and each layer's keys and values, Float["L heads features"]."""
        tokens, blocks = self.tokens[index, self.mask[index]], self.tables[index].blocks
        layers = range(len(self.cache.heads))
        return tokens, [self.cache.read_row(layer, blocks, len(tokens)) for layer in layers]

    @property
    def layers(self) -> tuple[KeysAndValues, ...]:
        """Each layer's keys and values, Float["R heads columns features"], zero where there is padding; copies."""
        return dense_layers([self.row(index)[1] for index in range(self.rows)], self.mask)

    def extend(self, mask: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Makes room for new columns, Bool["R S"] and Int["R S"]; returns first positions, Int["R"], and tables."""
        first = self.lengths
        ends = first + mask.sum(1)
        self._reserve(sum(t.missing(int(a), int(b)) for t, a, b in zip(self.tables, first, ends, strict=True)))
        pairs = zip(self.tables, first, ends, strict=True)
        copies = [copy for table, a, b in pairs if (copy := table.write(int(a), int(b)))]
        if copies:
            self.cache.copy([source for source, _ in copies], [target for _, target in copies])
        self.mask = np.concatenate([self.mask, mask], 1)
        self.tokens = np.concatenate([self.tokens, tokens.astype(np.int32)], 1)
        return first, self._tables()

    def crop(self, max_length: int) -> None:
        """Drops -max_length columns where it is negative; keeps the first max_length where it is positive."""
        if max_length == 0:
            return
        kept = max_length if max_length > 0 else max(0, self.get_seq_length() + max_length)
        self.mask, self.tokens = self.mask[:, :kept], self.tokens[:, :kept]
        for table, length in zip(self.tables, self.lengths, strict=True):
            table.truncate(int(length))

    def reorder_cache(self, beam_idx: Sequence[int]) -> None:
        """Row i becomes what row beam_idx[i] was; there may be more or fewer than before."""
        order = [int(index) for index in beam_idx]
        if any(not 0 <= index < self.rows for index in order):
            raise ArgumentError(f"beam_idx must hold rows in [0, {self.rows}), got {order}. Count rows from 0.")
        lengths = self.lengths
        forked = [self.tables[index].fork(int(lengths[index])) for index in order]
        for table in self.tables:
            table.truncate(0)
        self.tables, self.mask, self.tokens = forked, self.mask[order], self.tokens[order]

    def check(self, rows: int, cache: Any) -> None:
        """Raises ArgumentError unless it has so many rows, kept as `cache`, an empty one of the model, keeps them."""
        if _form(self.cache) != _form(cache):
            raise ArgumentError(
                "`past_key_values` must come from an earlier call of this model, got those of another. "
                "Pass None to start anew."
            )
        if self.rows != rows:
            raise ArgumentError(
                f"`past_key_values` must hold {rows} rows, as the inputs do, got {self.rows}. "
                "Use its reorder_cache to repeat or drop rows."
            )

    def _reserve(self, blocks: int) -> None:
        missing = blocks - len(self.pool.free)
        if missing > 0:
            total = self.pool.blocks + max(missing, self.pool.blocks // 2)
            self.cache.grow(total)
            self.pool.grow(total)

    def _tables(self) -> np.ndarray:
        tables = np.zeros((self.rows, max(1, max(len(table.blocks) for table in self.tables))), np.int32)
        for row, table in enumerate(self.tables):
            tables[row, : len(table.blocks)] = table.blocks
        return tables


class Seq2SeqPast(Past):
    """The same of a decoder's rows, with what each row's encoder left."""

    def __init__(self, cache: Any, memories: Sequence[Any]) -> None:
        """`memories`: one a row."""
        super().__init__(cache, len(memories))
        self.memories = list(memories)

    def reorder_cache(self, beam_idx: Sequence[int]) -> None:
        """Row i becomes what row beam_idx[i] was; there may be more or fewer than before."""
        order = [int(index) for index in beam_idx]
        super().reorder_cache(order)
        self.memories = [self.memories[index] for index in order]


def written_past(past: Any, new_cache: Callable[[int], Any], inputs: Any) -> Any:
    """A handle of generate() as rows that may be written, its keys and values copied; anything else as it is.

    A cache of the caller's that is empty gets a past of as many rows as `inputs` have, which the call then fills.
    """
    if isinstance(past, Cache):
        kind = past.settings.get("cache_implementation", "dynamic")
        if kind not in ("dynamic", "static"):
            raise NotSupportedError(
                f"`past_key_values` of a call of the model must be a DynamicCache or a StaticCache of the device, got "
                f"one that is {kind}. Pass it to generate()."
            )
        if past.get_seq_length() == 0 and inputs is not None:
            past.held = Past(new_cache(0), len(inputs))
        past.held = written_past(past.held, new_cache, inputs)
        return past.held
    if not isinstance(past, GeneratedPast):
        return past
    own = Past(new_cache(0), past.rows)
    if own.heads != tuple(getattr(past.engine.storage, "heads", ())):
        return past  # another model's: to be refused
    tokens = np.zeros(past.mask.shape, np.int32)
    rows = [past.row(index) for index in range(past.rows)]
    for index, (found, _) in enumerate(rows):
        tokens[index, past.mask[index]] = found
    own.extend(past.mask, tokens)
    for table, (_, layers) in zip(own.tables, rows, strict=True):
        for layer, (keys, values) in enumerate(layers):
            own.cache.write_row(layer, table.blocks, keys, values)
    return own


def check_past(past: Any, rows: int, cache: Any) -> None:
    """Raises ArgumentError for what no earlier call of the model returned; `cache` is an empty one of the model."""
    if past is None:
        return
    if not isinstance(past, Past):
        raise ArgumentError(
            f"`past_key_values` must be what an earlier call of this model returned, got {type(past).__name__}. "
            "Pass None to start anew."
        )
    past.check(rows, cache)


def _form(cache: Any) -> tuple[Any, ...]:
    """What two caches share that the same model can write to."""
    return type(cache), getattr(cache, "layout", None), getattr(cache, "heads", None)
