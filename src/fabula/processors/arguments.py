"""Checks of processors' arguments: each returns the value it was given, as a plain number, or says what is allowed."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from fabula import arrays
from fabula.errors import ArgumentError

__all__ = ["above_zero", "between", "matrix_of_tokens", "number", "token_ids", "whole"]


def number(name: str, value: Any, advice: str) -> float:
    """A finite number."""
    if not _is_number(value) or not abs(value) < float("inf"):
        raise ArgumentError(f"`{name}` must be a finite number, got {value!r}. {advice}")
    return float(value)


def above_zero(name: str, value: Any, advice: str) -> float:
    """A finite number > 0."""
    if not _is_number(value) or not 0 < value < float("inf"):
        raise ArgumentError(f"`{name}` must be a number above 0, got {value!r}. {advice}")
    return float(value)


def between(name: str, value: Any, interval: str, advice: str) -> float:
    """A number in an interval between 0 and 1: "(0, 1)", "(0, 1]" or "[0, 1]"."""
    inside = _is_number(value) and 0 <= value <= 1
    if not inside or (value == 0 and interval[0] == "(") or (value == 1 and interval[-1] == ")"):
        raise ArgumentError(f"`{name}` must be in {interval}, got {value!r}. {advice}")
    return float(value)


def whole(name: str, value: Any, least: int, advice: str = "Give an int.") -> int:
    """A whole number that is at least `least`."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ArgumentError(f"`{name}` must be a whole number of at least {least}, got {value!r}. {advice}")
    return number


def token_ids(name: str, value: Any) -> tuple[int, ...]:
    """One token id, or several in a list or an array, as a tuple."""
    value = arrays.listed(value)
    listed = value if isinstance(value, (list, tuple, set, frozenset, range)) else [value]
    return tuple(whole(name, token, 0, "Token ids are whole numbers from 0.") for token in listed)


def matrix_of_tokens(name: str, value: Any) -> np.ndarray:
    """Int["B E"] on the host, of one row of token ids, a list of rows or an array; short rows end in -1, no token."""
    value = arrays.listed(value)
    rows = value if len(value) and isinstance(value[0], (list, tuple)) else [value]
    matrix = np.full((len(rows), max(map(len, rows))), -1, dtype=np.int32)
    for row, tokens in zip(matrix, rows, strict=True):
        row[: len(tokens)] = token_ids(name, list(tokens))
    return matrix


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
