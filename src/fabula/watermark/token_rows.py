"""Texts as a detector takes them: arrays of any framework or lists, of one length or of several."""

from __future__ import annotations

from typing import Any

import numpy as np

from fabula import arrays
from fabula.errors import ArgumentError

__all__ = ["token_rows"]


def token_rows(name: str, value: Any) -> list[np.ndarray]:
    """Int64["L"] for each text, on the host. Raises ArgumentError for anything but rows of whole numbers."""
    if hasattr(value, "shape"):
        value = arrays.of(value).to_host(value)
    try:
        rows = [np.asarray(row) for row in value]
    except (TypeError, ValueError):
        rows = []
    if not rows or any(row.ndim != 1 or (len(row) > 0 and row.dtype.kind not in "iu") for row in rows):
        raise ArgumentError(
            f"`{name}` must be token ids of shape [texts, length], got {value!r:.80}. Wrap one text: [ids]."
        )
    return [row.astype(np.int64) for row in rows]
