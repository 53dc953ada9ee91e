"""`position_ids`: a call may pass those that hold anyway; others are refused, as rows count their own tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from fabula.errors import NotSupportedError
from fabula.generation.prompts.rows import Prompts, host_array


def check_positions(position_ids: Any, prompts: Prompts) -> None:
    """Raises NotSupportedError unless each token's position is the number of its row's tokens before it."""
    if position_ids is None:
        return
    rows = list(position_ids) if prompts.given is None else _by_row(position_ids, prompts)
    counted = len(rows) == len(prompts.rows) and all(
        np.array_equal(host_array(row, "position_ids"), np.arange(len(prompt)))
        for row, prompt in zip(rows, prompts.rows, strict=True)
    )
    if not counted:
        raise NotSupportedError(
            "`position_ids` must count each row's tokens from 0, as they do when left out; others are not supported."
        )


def _by_row(position_ids: Any, prompts: Prompts) -> list[np.ndarray]:
    """The positions of the columns that count; none where the shape is another."""
    host = host_array(position_ids, "position_ids")
    assert prompts.mask is not None
    if host.ndim != 2 or host.shape[1] != prompts.mask.shape[1] or len(host) not in (1, len(prompts.mask)):
        return []
    host = np.broadcast_to(host, prompts.mask.shape)
    return [row[keep] for row, keep in zip(host, prompts.mask, strict=True)]
