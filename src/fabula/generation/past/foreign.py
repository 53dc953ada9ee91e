"""A Cache of transformers, read as what it holds: a rectangle of keys and one of values for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula.cache.kept import UNKNOWN
from fabula.errors import NotSupportedError

__all__ = ["ForeignCache", "is_foreign"]


def is_foreign(past: Any) -> bool:
    """Whether it has the parts of such a Cache."""
    decoder = getattr(past, "self_attention_cache", past)
    return hasattr(decoder, "get_seq_length") and hasattr(decoder, "layers") and hasattr(decoder, "update")


@dataclass(frozen=True, slots=True)
class ForeignCache:
    """Keys and values, Float["R heads C features"] a layer. Which columns are padding it does not know."""

    layers: Sequence[tuple[Any, Any]]
    columns: int
    mask: None = None

    @classmethod
    def of(cls, past: Any) -> ForeignCache:
        """Raises NotSupportedError for a layer that does not have every column any more."""
        decoder = getattr(past, "self_attention_cache", past)
        columns = int(decoder.get_seq_length())
        if not columns:
            return cls((), 0)
        layers = []
        for layer in decoder.layers:
            keys, values = (getattr(layer, name, None) for name in ("keys", "values"))
            if keys is None or values is None or keys.ndim != 4 or keys.shape[-2] < columns:
                raise NotSupportedError(
                    "`past_key_values` must hold the keys and values of all columns in every layer, "
                    f"got a {type(layer).__name__} that does not. Leave it out and pass all ids."
                )
            layers.append((keys[..., :columns, :], values[..., :columns, :]))
        return cls(layers, columns)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.layers[0][0].shape[0])

    @property
    def lengths(self) -> np.ndarray:
        """Int["R"]: how many columns each row has."""
        return np.full(self.rows, self.columns, np.int32)

    @property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """For each layer its key heads and the features of one."""
        return tuple((int(keys.shape[1]), int(keys.shape[3])) for keys, _ in self.layers)

    def get_seq_length(self) -> int:
        """How many columns there are, padding included."""
        return self.columns

    def masked_row(self, index: int, mask: np.ndarray) -> tuple[np.ndarray, list[tuple[Any, Any]]]:
        """The tokens of the columns in Bool["C"], none of them known, and each layer's keys and values."""
        places = np.flatnonzero(mask)
        found = [
            (keys[index].transpose(0, 1)[places], values[index].transpose(0, 1)[places]) for keys, values in self.layers
        ]
        return np.full(len(places), UNKNOWN, np.int32), found
