"""Lists of tokens, of each row its own, as arrays of rounded sizes: other tokens are other numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["as_numbers", "bucket", "tokens_listed"]

LEAST = 4  # tokens
NONE = -1  # in place of a token


def as_numbers(name: str) -> Any:
    """`listed` of a processor whose one list is that attribute: tokens, as any others of its kind could be."""

    def listed(cls: Any, members: Sequence[Any]) -> tuple[Any, Mapping[str, np.ndarray]]:
        return cls.__new__(cls), tokens_listed(members, name, cls.numbers)

    return classmethod(listed)


def tokens_listed(members: Sequence[Any], name: str, numbers: Mapping[str, float]) -> dict[str, np.ndarray]:
    """The attributes of the processors of R rows, or None: lists of tokens Int["R K"], and numbers ["R 1"].

    K is a power of two. `numbers` are, by attribute, those with which a row's scores stay as they are.
    """
    lists = [np.zeros(0, np.int32) if member is None else np.ravel(getattr(member, name)) for member in members]
    tokens = np.full((len(lists), bucket(max([LEAST, *map(len, lists)]))), NONE, np.int32)
    for row, own in enumerate(lists):
        tokens[row, : len(own)] = own
    return {name: tokens} | {each: _numbers(members, each, neutral) for each, neutral in numbers.items()}


def _numbers(members: Sequence[Any], name: str, neutral: float) -> np.ndarray:
    values = [neutral if member is None else getattr(member, name) for member in members]
    return np.array(values, np.int32 if isinstance(neutral, int) else np.float32)[:, None]


def bucket(count: int) -> int:
    """The least power of two that is not less."""
    return 1 << (count - 1).bit_length()
