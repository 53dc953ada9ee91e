"""Rows of different lengths as a rectangle and its mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def padded(
    rows: Sequence[Sequence[int]], side: str = "left", fill: int = 0, convert: Callable[[np.ndarray], Any] = np.asarray
) -> tuple[Any, Any]:
    """Int64["R L"]: the rows with `fill` on one side of them; and 1 where a row is, else 0; converted."""
    width = max(map(len, rows))
    ids, mask = np.full((len(rows), width), fill), np.zeros((len(rows), width), int)
    for row, tokens in enumerate(rows):
        span = slice(width - len(tokens), width) if side == "left" else slice(0, len(tokens))
        ids[row, span], mask[row, span] = tokens, 1
    return convert(ids), convert(mask)
