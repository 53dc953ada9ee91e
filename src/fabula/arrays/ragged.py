"""Ragged rows of tokens as rectangles: what code written for transformers is given."""

from __future__ import annotations

from typing import Any

from fabula import arrays

__all__ = ["rectangle"]


def rectangle(tokens: Any, lengths: Any, padding: int) -> Any:
    """["R W"]: rows of tokens ["R L"] that hold lengths ["R"], padded on the left to the longest; in the index type."""
    xp = arrays.of(tokens)
    width = int(xp.to_host(lengths).max())
    columns = xp.arange(width, like=tokens)[None, :] - (width - lengths[:, None])
    moved = xp.take_along_axis(tokens, xp.maximum(columns, 0))
    return xp.as_indices(xp.where(columns < 0, padding, moved))
