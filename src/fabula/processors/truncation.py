"""Truncation by rank and by mass: top-k, top-p, min-p and top-h keep the likeliest tokens and remove the rest."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.processors.arguments import between, whole
from fabula.processors.processor import LogitsProcessor, column

__all__ = ["MinPLogitsWarper", "TopHLogitsWarper", "TopKLogitsWarper", "TopPLogitsWarper", "at_least", "is_one"]

INFINITY = float("inf")


class TopKLogitsWarper(LogitsProcessor):
    """Keeps the k highest scores, and all that equal the k-th."""

    numbers: ClassVar[Mapping[str, float]] = {"top_k": 0}

    def __init__(self, top_k: int, filter_value: float = -INFINITY, min_tokens_to_keep: int = 1) -> None:
        least = whole("min_tokens_to_keep", min_tokens_to_keep, 1)
        self.top_k = max(whole("top_k", top_k, 1, "Leave it out, or give 0 to generate(), to switch it off."), least)
        self.filter_value = filter_value
        self.min_tokens_to_keep = least

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        removed = scores < at_least(xp, scores, self.top_k)
        return xp.without(scores, removed, self.filter_value)

    def stack_key(self) -> Hashable:
        return self.filter_value


class TopPLogitsWarper(LogitsProcessor):
    """Keeps the smallest set of likeliest tokens that holds a mass of top_p; the token that crosses it is kept."""

    numbers: ClassVar[Mapping[str, float]] = {"tail": -1.0, "min_tokens_to_keep": 1}

    def __init__(self, top_p: float, filter_value: float = -INFINITY, min_tokens_to_keep: int = 1) -> None:
        self.top_p = between("top_p", top_p, "[0, 1]", "Use 1.0 to switch it off.")
        self.tail = 1 - self.top_p  # the mass that may go
        self.filter_value = filter_value
        self.min_tokens_to_keep = whole("min_tokens_to_keep", min_tokens_to_keep, 1)

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        tail = column(xp, self.tail, "float32", scores)
        kept = xp.top_mass(scores, tail, column(xp, self.min_tokens_to_keep, "int32", scores))
        return xp.without(scores, ~kept, self.filter_value)

    def stack_key(self) -> Hashable:
        return self.filter_value


class MinPLogitsWarper(LogitsProcessor):
    """Keeps tokens whose probability is at least min_p times the highest (Nguyen et al. 2024)."""

    numbers: ClassVar[Mapping[str, float]] = {"min_p": 0.0, "min_tokens_to_keep": 1}

    def __init__(self, min_p: float, filter_value: float = -INFINITY, min_tokens_to_keep: int = 1) -> None:
        self.min_p = between("min_p", min_p, "[0, 1]", "Use 0.0 to switch it off.")
        self.filter_value = filter_value
        self.min_tokens_to_keep = whole("min_tokens_to_keep", min_tokens_to_keep, 1)

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        probabilities = xp.softmax(scores)
        highest = xp.max(probabilities, keepdims=True)
        removed = probabilities < column(xp, self.min_p, "float32", scores) * highest
        if not is_one(self.min_tokens_to_keep):
            removed = removed & (probabilities < at_least(xp, probabilities, self.min_tokens_to_keep))
        return xp.without(scores, removed, self.filter_value)

    def stack_key(self) -> Hashable:
        return self.filter_value


class TopHLogitsWarper(LogitsProcessor):
    """Keeps the likeliest tokens while their share of the entropy is at most top_h (Baghaei Potraghloo et al. 2025).

    Only the 100 likeliest tokens count; the first is always kept.
    """

    numbers: ClassVar[Mapping[str, float]] = {"top_h": 0.0}

    def __init__(self, top_h: float, filter_value: float = -INFINITY) -> None:
        self.top_n = 100
        self.top_h = between("top_h", top_h, "(0, 1]", "Leave it out to switch it off.")
        self.filter_value = filter_value

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        values, tokens = xp.top_k(scores, min(self.top_n, scores.shape[-1]))
        probabilities = xp.softmax(values)
        surprise = xp.where(probabilities > 0, -xp.log(probabilities), 0.0)
        shares = probabilities * surprise
        top_h = column(xp, self.top_h, "float32", scores)
        within = xp.cumulative_sum(shares) <= top_h * xp.sum(shares, keepdims=True)
        first = xp.arange(values.shape[-1], like=scores) == 0
        nothing = xp.zeros(tuple(scores.shape), "bool", like=scores)
        kept = xp.scatter_set(nothing, tokens, (within & (probabilities > 0)) | first)
        if isinstance(top_h, float):
            return xp.without(scores, ~kept, self.filter_value)
        return xp.without(scores, ~kept & (top_h != 0), self.filter_value)  # 0: a row that has no top_h

    def stack_key(self) -> Hashable:
        return self.filter_value


def is_one(count: Any) -> bool:
    """Whether a number, or each of a number a row, is known to be 1."""
    return isinstance(count, (int, np.ndarray)) and bool(np.all(count == 1))


def at_least(xp: Any, x: Any, count: Any) -> Any:
    """["R 1"]: the count-th highest value of each row of x; -inf for a row whose count, one for all or a row, is 0."""
    width = x.shape[-1]
    if isinstance(count, int):
        return xp.kth_value(x, min(count, width))
    if isinstance(count, np.ndarray):
        lowest = xp.kth_value(x, np.clip(count, 1, width))
        return xp.where(xp.asarray(count == 0, "bool", like=x), -INFINITY, lowest)
    return xp.where(count == 0, -INFINITY, xp.kth_value(x, xp.minimum(xp.maximum(count, 1), width)))
