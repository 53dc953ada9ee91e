"""The prompts of a call: from tensors with a mask, or ragged lists, to one row of ids a prompt, and back."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula import arrays
from fabula.errors import ArgumentError, ContextLengthError

_BATCH_WITHOUT_MASK = (
    "The attention mask and the pad token id were not set, with a batched input. "
    "As a consequence, you may observe unexpected behavior. "
    "Please pass your input's `attention_mask` to obtain reliable results."
)
_MASK_CANNOT_BE_INFERRED = (
    "The attention mask is not set and cannot be inferred from input because pad token is same as eos token. "
    "As a consequence, you may observe unexpected behavior. "
    "Please pass your input's `attention_mask` to obtain reliable results."
)


@dataclass(frozen=True, slots=True)
class Prompts:
    """R prompts as the engine wants them, and what they looked like at the door."""

    rows: list[np.ndarray]  # int32, each without its padding
    given: Any = None  # Int["R L"]: the tensor or array as it came; None: ragged lists

    def width(self, index: int) -> int:
        """Columns that prompt `index` takes where it came from: with its padding in a tensor, without in a list."""
        return len(self.rows[index]) if self.given is None else int(self.given.shape[1])

    def as_host(self) -> np.ndarray:
        """[R, L] int64 as given; a single ragged list as a batch of one."""
        if self.given is not None:
            return _host(self.given).astype(np.int64)
        return np.array(self.rows, np.int64)


def read_prompts(inputs: Any, attention_mask: Any, *, pad: int | None, eos: frozenset[int], bos: int | None) -> Prompts:
    """The call's prompts. Raises ArgumentError for a wrong rank, type or mask, and for an empty prompt."""
    if inputs is None:
        return _from_start_token(bos)
    if isinstance(inputs, (list, tuple)):
        return _from_lists(inputs, attention_mask)
    host = _host(inputs)
    _check_ids(host)
    if attention_mask is None:
        mask = infer_mask(host, pad=pad, eos=eos)
    else:
        mask = _check_mask(_host(attention_mask), host.shape)
    rows = [row[keep].astype(np.int32) for row, keep in zip(host, mask, strict=True)]
    for index, row in enumerate(rows):
        if not len(row):
            raise ArgumentError(
                f"`input_ids` row {index} holds no token that `attention_mask` lets through; give each row one."
            )
    return Prompts(rows, given=inputs)


def infer_mask(ids: np.ndarray, *, pad: int | None, eos: frozenset[int]) -> np.ndarray:
    """Which ids count: all but the pads, where pads can be told from text; warns where they cannot."""
    if pad is None:
        if len(ids) > 1:
            warnings.warn(_BATCH_WITHOUT_MASK, stacklevel=4)
        return np.ones(ids.shape, bool)
    if pad in eos:
        if len(ids) > 1 and (ids == pad).any():
            warnings.warn(_MASK_CANNOT_BE_INFERRED, stacklevel=4)
        return np.ones(ids.shape, bool)
    return ids != pad


def read_ids(input_ids: Any, vocabulary: int) -> np.ndarray:
    """Ids [R, L] on the host, as `model(...)` takes them. Raises ArgumentError for another rank or type."""
    host = _host(input_ids)
    _check_ids(host)
    _check_vocabulary(host, vocabulary, "")
    return host


def check_room(length: int, context: int) -> None:
    """Raises ContextLengthError where a row would outgrow the model's context."""
    if length > context:
        raise ContextLengthError(
            f"`input_ids` reach position {length}, and the model's context is {context}. Shorten them."
        )


def check_rows(rows: Sequence[np.ndarray], *, vocabulary: int, context: int) -> None:
    """Raises ArgumentError for ids out of the vocabulary, ContextLengthError for a prompt that leaves no room."""
    for index, row in enumerate(rows):
        _check_vocabulary(row, vocabulary, f" in row {index}")
        if len(row) >= context:
            raise ContextLengthError(
                f"`input_ids` row {index} has {len(row)} tokens, and the model's context is {context}: "
                f"at most {context - 1} leave room for a new one. Shorten the prompt."
            )


def _from_start_token(bos: int | None) -> Prompts:
    if bos is None:
        raise ArgumentError("`bos_token_id` has to be defined when no `input_ids` are provided.")
    return Prompts([np.array([bos], np.int32)], given=np.array([[bos]], np.int64))


def _from_lists(inputs: Sequence[Any], attention_mask: Any) -> Prompts:
    """Lists of ids, one a prompt; a mask of the same shape drops what it marks 0."""
    if not inputs:
        raise ArgumentError("`inputs` must hold at least one prompt, got an empty list.")
    if all(isinstance(item, (int, np.integer)) and not isinstance(item, bool) for item in inputs):
        raise ArgumentError(
            "`inputs` must be a list of prompts, each a list of ids, got a flat list. Wrap it: [[1, 2, 3]]."
        )
    rows = []
    for index, item in enumerate(inputs):
        row = np.asarray(item)
        if row.ndim != 1 or not len(row) or row.dtype.kind not in "iu":
            raise ArgumentError(f"`inputs`[{index}] must be a list of one or more integer ids, got {_short(item)}.")
        if attention_mask is not None:
            row = row[np.asarray(attention_mask[index], bool)]
        rows.append(_narrow(row, index))
    return Prompts(rows)


def _narrow(row: np.ndarray, index: int) -> np.ndarray:
    if row.min() < 0 or row.max() > np.iinfo(np.int32).max:
        raise ArgumentError(f"`inputs`[{index}] holds an id that no vocabulary has, got {row.min()} to {row.max()}.")
    return row.astype(np.int32)


def _check_ids(ids: np.ndarray) -> None:
    if ids.ndim != 2:
        raise ArgumentError(f"`input_ids` must have 2 dimensions, [batch, length], got shape {list(ids.shape)}.")
    if ids.dtype.kind not in "iu":
        raise ArgumentError(f"`input_ids` must hold integers, got {ids.dtype}.")
    if 0 in ids.shape:
        raise ArgumentError(f"`input_ids` must hold at least one token, got shape {list(ids.shape)}.")


def _check_vocabulary(ids: np.ndarray, vocabulary: int, where: str) -> None:
    if ids.min() < 0 or ids.max() >= vocabulary:
        wrong = int(ids[(ids < 0) | (ids >= vocabulary)][0])
        raise ArgumentError(f"`input_ids` must lie in [0, {vocabulary}), got {wrong}{where}.")


def _check_mask(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if mask.shape != shape:
        raise ArgumentError(
            f"`attention_mask` must have the shape of `input_ids`, {list(shape)}, got {list(mask.shape)}."
        )
    if not np.isin(mask, (0, 1)).all():
        raise ArgumentError("`attention_mask` must hold 0 (ignored) and 1 (counts) only.")
    return mask.astype(bool)


def _host(x: Any) -> np.ndarray:
    """An array of any framework, or nested lists, in NumPy."""
    return np.asarray(x) if isinstance(x, (list, tuple)) else arrays.of(x).to_host(x)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
