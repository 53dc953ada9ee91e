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
_CALLER = 7  # frames from a warning here up to whoever called model.generate()


@dataclass(frozen=True, slots=True)
class Prompts:
    """R prompts as the engine wants them, and what they looked like at the door."""

    rows: list[np.ndarray]  # int32, each without its padding
    given: Any = None  # Int["R L"]: the tensor or array as it came; None: ragged lists
    mask: np.ndarray | None = None  # Bool["R L"]: which columns of `given` are in `rows`
    shown: bool = True  # whether the ids mean anything; else they stand for vectors, and are not returned

    def width(self, index: int) -> int:
        """Columns that prompt `index` takes where it came from: with its padding in a tensor, without in a list."""
        return len(self.rows[index]) if self.given is None else int(self.given.shape[1])

    def as_host(self) -> np.ndarray:
        """[R, L] int64 as given; a single ragged list as a batch of one."""
        if self.given is not None:
            return host_array(self.given, "input_ids").astype(np.int64)
        return np.array(self.rows, np.int64)

    def rectangle(self, pad: int) -> tuple[np.ndarray, np.ndarray]:
        """[R, L] int64 as given, and Bool["R L"] which of them count; lists are padded on the left."""
        if self.given is not None:
            ids = self.as_host()
            return ids, np.ones(ids.shape, bool) if self.mask is None else self.mask
        width = max(map(len, self.rows))
        ids, mask = np.full((len(self.rows), width), pad, np.int64), np.zeros((len(self.rows), width), bool)
        for place, row in enumerate(self.rows):
            ids[place, width - len(row) :], mask[place, width - len(row) :] = row, True
        return ids, mask


def read_prompts(
    inputs: Any, attention_mask: Any, *, pad: int | None, eos: frozenset[int], bos: int | None, like: Any = None
) -> Prompts:
    """The call's prompts. Raises ArgumentError for a wrong rank, type or mask, and for an empty prompt.

    Where there are none, a start token is the prompt, in the framework and at the place of `like` (None: NumPy).
    """
    if inputs is None:
        return _from_start_token(bos, np.zeros(0) if like is None else like)
    if isinstance(inputs, (list, tuple)):
        return _from_lists(inputs, attention_mask)
    host = host_array(inputs, "input_ids")
    _check_ids(host)
    if attention_mask is None:
        mask = infer_mask(host, pad=pad, eos=eos)
    else:
        mask = _check_mask(host_array(attention_mask, "attention_mask"), host.shape)
    kept = [row[keep] for row, keep in zip(host, mask, strict=True)]
    rows = [_narrow(row, f"`input_ids` row {index}") for index, row in enumerate(kept)]
    for index, row in enumerate(rows):
        if not len(row):
            raise ArgumentError(
                f"`input_ids` row {index} holds no token that `attention_mask` lets through; give each row one."
            )
    return Prompts(rows, given=inputs, mask=mask)


def infer_mask(ids: np.ndarray, *, pad: int | None, eos: frozenset[int]) -> np.ndarray:
    """Which ids count: all but the pads, where pads can be told from text; warns where they cannot."""
    if pad is None:
        if len(ids) > 1:
            warnings.warn(_BATCH_WITHOUT_MASK, stacklevel=_CALLER)
        return np.ones(ids.shape, bool)
    if pad in eos:
        if len(ids) > 1 and (ids == pad).any():
            warnings.warn(_MASK_CANNOT_BE_INFERRED, stacklevel=_CALLER)
        return np.ones(ids.shape, bool)
    return ids != pad


def read_ids(input_ids: Any, vocabulary: int, name: str = "input_ids") -> np.ndarray:
    """Ids [R, L] on the host, as `model(...)` takes them. Raises ArgumentError for another rank or type."""
    host = host_array(input_ids, name)
    _check_ids(host, name)
    _check_vocabulary(host, vocabulary, "", name)
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


def _from_start_token(bos: int | None, like: Any) -> Prompts:
    if bos is None:
        raise ArgumentError("`bos_token_id` has to be defined when no `input_ids` are provided.")
    given = arrays.of(like).asarray(np.array([[bos]], np.int64), "int64", like=like)
    return Prompts([np.array([bos], np.int32)], given=given, mask=np.ones((1, 1), bool))


def _from_lists(inputs: Sequence[Any], attention_mask: Any) -> Prompts:
    """Lists of ids, one a prompt; a mask of the same shape drops what it marks 0."""
    if not inputs:
        raise ArgumentError("`inputs` must hold at least one prompt, got an empty list.")
    if all(isinstance(item, (int, np.integer)) and not isinstance(item, bool) for item in inputs):
        raise ArgumentError(
            "`inputs` must be a list of prompts, each a list of ids, got a flat list. Wrap it: [[1, 2, 3]]."
        )
    masks = None if attention_mask is None else _mask_rows(attention_mask, len(inputs))
    rows = []
    for index, item in enumerate(inputs):
        row = host_array(item, f"inputs[{index}]")
        if row.ndim != 1 or not len(row) or row.dtype.kind not in "iu":
            raise ArgumentError(f"`inputs`[{index}] must be a list of one or more integer ids, got {_short(item)}.")
        if masks is not None:
            row = row[_list_mask(masks[index], len(row), index)]
        rows.append(_narrow(row, f"`inputs`[{index}]"))
    return Prompts(rows)


def _mask_rows(attention_mask: Any, prompts: int) -> list[Any]:
    if not hasattr(attention_mask, "__iter__") or len(attention_mask) != prompts:
        raise ArgumentError(f"`attention_mask` must hold one list a prompt, {prompts}, got {_short(attention_mask)}.")
    return list(attention_mask)


def _list_mask(mask: Any, length: int, index: int) -> np.ndarray:
    """Bool["L"]: which ids of one list count."""
    row = host_array(mask, "attention_mask")
    if row.shape != (length,) or not np.isin(row, (0, 1)).all() or not row.any():
        raise ArgumentError(
            f"`attention_mask`[{index}] must hold 0 or 1 for each of {length} ids, and a 1, got {_short(mask)}."
        )
    return row.astype(bool)


def _narrow(row: np.ndarray, where: str) -> np.ndarray:
    """Int32["L"]; what would not fit is refused, and never wrapped around into an id that exists."""
    if len(row) and (row.min() < 0 or row.max() > np.iinfo(np.int32).max):
        raise ArgumentError(f"{where} must hold ids of the vocabulary, got {row.min()} to {row.max()}.")
    return row.astype(np.int32)


def _check_ids(ids: np.ndarray, name: str = "input_ids") -> None:
    if ids.ndim != 2:
        raise ArgumentError(f"`{name}` must have 2 dimensions, [batch, length], got shape {list(ids.shape)}.")
    if ids.dtype.kind not in "iu":
        raise ArgumentError(f"`{name}` must hold integers, got {ids.dtype}.")
    if 0 in ids.shape:
        raise ArgumentError(f"`{name}` must hold at least one token, got shape {list(ids.shape)}.")


def _check_vocabulary(ids: np.ndarray, vocabulary: int, where: str, name: str = "input_ids") -> None:
    if ids.min() < 0 or ids.max() >= vocabulary:
        wrong = int(ids[(ids < 0) | (ids >= vocabulary)][0])
        raise ArgumentError(f"`{name}` must lie in [0, {vocabulary}), got {wrong}{where}.")


def _check_mask(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if mask.shape != shape:
        raise ArgumentError(
            f"`attention_mask` must have the shape of `input_ids`, {list(shape)}, got {list(mask.shape)}."
        )
    if not np.isin(mask, (0, 1)).all():
        raise ArgumentError("`attention_mask` must hold 0 (ignored) and 1 (counts) only.")
    return mask.astype(bool)


def host_array(x: Any, name: str) -> np.ndarray:
    """An array of any framework, or nested lists, in NumPy. Raises ArgumentError, naming the argument."""
    try:
        return np.asarray(x) if isinstance(x, (list, tuple, range)) else arrays.of(x).to_host(x)
    except ArgumentError as error:  # of a framework that nobody knows
        raise ArgumentError(
            f"`{name}` must be numbers in a tensor, an array or lists, got {type(x).__name__}. "
            "Pass what the tokenizer returns: model.generate(**tokenizer(text, return_tensors='pt'))."
        ) from error
    except (TypeError, NotImplementedError) as error:  # a type that NumPy has not; in a trace there are no numbers yet
        raise ArgumentError(
            f"`{name}` must hold numbers that NumPy has, got {type(x).__name__} of {getattr(x, 'dtype', 'objects')}. "
            "Within jax.jit and tf.function there are none: call it outside, as it compiles its own loops."
        ) from error
    except ValueError as error:  # lists of different lengths
        raise ArgumentError(f"`{name}` must be rows of one length, got lists of several. Pad them.") from error


def host_mask(mask: Any, name: str = "attention_mask") -> np.ndarray | None:
    """The same of a mask, if there is one."""
    return None if mask is None else host_array(mask, name)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
