"""Rows brought to a length: what `padding`, `truncation` and `max_length` ask for, checked, and rows padded with it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fabula.errors import ArgumentError, NotSupportedError

UNBOUNDED = int(1e30)  # `model_max_length` of a tokenizer that knows no limit, as transformers writes it
_LARGE = int(1e20)  # what transformers takes as "no limit"

_PADDING = {True: "longest", False: "do_not_pad", None: "do_not_pad"}
_TRUNCATION = {True: "longest_first", False: "do_not_truncate", None: "do_not_truncate"}


@dataclass(frozen=True)
class Lengths:
    """How long rows become."""

    padding: str  # "longest", "max_length" or "do_not_pad"
    truncate: bool
    max_length: int | None  # tokens, special ones included; set if truncate or padding is "max_length"
    multiple_of: int | None
    side: str  # where padding goes
    truncation_side: str  # where tokens are cut off


def read_lengths(
    padding: Any,
    truncation: Any,
    max_length: int | None,
    multiple_of: int | None,
    side: str,
    truncation_side: str,
    model_max_length: int,
) -> Lengths:
    """The arguments of a call as Lengths, by transformers' rules; raises ArgumentError for what makes no sense."""
    if max_length is not None and padding in (False, None) and truncation is None:
        truncation = True
    fill, cut = _padding(padding), _truncation(truncation)
    _check_number("max_length", max_length)
    _check_number("pad_to_multiple_of", multiple_of)
    check_side("padding_side", side)
    if fill == "longest" and max_length is not None and not cut:
        warnings.warn(
            "`max_length` is ignored when `padding`=`True` and there is no truncation strategy. "
            "To pad to max length, use `padding='max_length'`.",
            stacklevel=4,
        )
    if max_length is None and (cut or fill == "max_length"):
        if model_max_length > _LARGE:
            cut, fill = False, "do_not_pad" if fill == "max_length" else fill
        else:
            max_length = model_max_length
    if cut and fill != "do_not_pad" and multiple_of and max_length is not None and max_length % multiple_of:
        raise ArgumentError(
            f"`max_length` must be a multiple of `pad_to_multiple_of` where both are used, got {max_length} and "
            f"{multiple_of}."
        )
    return Lengths(fill, cut, max_length, multiple_of, side, truncation_side)


def _padding(value: Any) -> str:
    value = getattr(value, "value", value)
    name = _PADDING[value] if value is None or isinstance(value, bool) else value
    if name not in ("longest", "max_length", "do_not_pad"):
        raise ArgumentError(f"`padding` must be True, False, 'longest', 'max_length' or 'do_not_pad', got {value!r}.")
    return name


def _truncation(value: Any) -> bool:
    value = getattr(value, "value", value)
    name = _TRUNCATION[value] if value is None or isinstance(value, bool) else value
    if name == "only_second":
        raise NotSupportedError("`truncation='only_second'` is for pairs of texts. Use truncation=True.")
    if name not in ("longest_first", "only_first", "do_not_truncate"):
        raise ArgumentError(
            f"`truncation` must be True, False, 'longest_first', 'only_first' or 'do_not_truncate', got {value!r}."
        )
    return name != "do_not_truncate"


def _check_number(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ArgumentError(f"`{name}` must be a positive integer or None, got {value!r}.")


def check_side(name: str, side: Any) -> str:
    """`side` if it is one; raises ArgumentError otherwise."""
    if side not in ("left", "right"):
        raise ArgumentError(f"`{name}` must be 'left' or 'right', got {side!r}.")
    return side


def padded_length(longest: int, lengths: Lengths) -> int:
    """The length that every row gets, given the longest one's; 0 where rows stay as they are."""
    if lengths.padding == "do_not_pad":
        return 0
    length = longest if lengths.padding == "longest" else lengths.max_length or longest
    multiple = lengths.multiple_of or 1
    return -(-length // multiple) * multiple


def pad_columns(
    columns: Mapping[str, list[list[Any]]], fillers: Mapping[str, Any], lengths: Lengths
) -> dict[str, list[Any]]:
    """Columns of rows, each padded with its filler; rows that are longer than asked for stay whole."""
    length = padded_length(max((len(row) for row in columns["input_ids"]), default=0), lengths)
    return {
        name: [_fill(row, fillers[name], length, lengths.side) for row in rows] if name in fillers else rows
        for name, rows in columns.items()
    }


def _fill(row: list[Any], filler: Any, length: int, side: str) -> list[Any]:
    missing = [filler] * (length - len(row))
    return missing + row if side == "left" else row + missing
