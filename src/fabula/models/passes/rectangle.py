"""A rectangle of padded rows, as people pass it to `model(...)`, becomes a batch of ragged ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from fabula.errors import ArgumentError, NotSupportedError
from fabula.models.passes.past import Past
from fabula.ops.protocol import Batch

IGNORED = -100  # the label of a position without one


def column_mask(attention_mask: np.ndarray | None, shape: tuple[int, int], past: Past | None) -> np.ndarray:
    """Bool["R S"]: which of the new columns are tokens. The mask may cover the columns of the past as well.

    Raises ArgumentError for a mask of another shape, or without any token.
    """
    if attention_mask is None:
        return np.ones(shape, bool)
    if attention_mask.ndim != 2:
        raise NotSupportedError(
            f"`attention_mask` must have 2 dimensions, got {attention_mask.ndim}. Pass one number a token."
        )
    before = 0 if past is None else past.get_seq_length()
    allowed = {(shape[0], shape[1]), (shape[0], before + shape[1])}
    if attention_mask.shape not in allowed:
        raise ArgumentError(
            f"`attention_mask` must have the shape {' or '.join(map(str, sorted(allowed)))}, "
            f"got {attention_mask.shape}. Pass one number a token."
        )
    mask = attention_mask[:, attention_mask.shape[1] - shape[1] :] != 0
    if not mask.any():
        raise ArgumentError(
            "`attention_mask` must mark at least one token, got none. Pass 1 for tokens, 0 for padding."
        )
    return mask


def check_one_kind(ids: Any, vectors: Any, prefix: str = "") -> None:
    """Raises ArgumentError unless there are either ids or vectors; `prefix` is what their names begin with."""
    if (ids is None) == (vectors is None):
        raise ArgumentError(
            f"`{prefix}input_ids` or `{prefix}inputs_embeds` must be given, and not both. Pass one of them."
        )


def check_labels(labels: Any, shape: tuple[int, int]) -> None:
    """Raises ArgumentError for labels of another shape than the inputs, Int["R S"]."""
    if labels is not None and tuple(np.shape(labels)) != shape:
        raise ArgumentError(
            f"`labels` must have the shape {shape} of the inputs, got {tuple(np.shape(labels))}. "
            "Pass one a token, -100 where there is none."
        )


def ragged_batch(tokens: np.ndarray, mask: np.ndarray, past: Past | None) -> Batch:
    """The batch of the columns marked in Bool["R S"], all scored; with a past it makes room there."""
    counts = mask.sum(1)
    first, tables = (np.zeros(len(mask), np.int32), np.zeros((len(mask), 1), np.int32))
    if past is not None:
        first, tables = past.extend(mask, tokens)
    return Batch(
        tokens=tokens[mask].astype(np.int32),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        first=first,
        tables=tables,
        scored=np.arange(int(counts.sum()), dtype=np.int32),
    )
