"""Truncation by probability against the distribution's entropy: typical, epsilon and eta sampling."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.processors.arguments import between, whole
from fabula.processors.processor import LogitsProcessor, column
from fabula.processors.truncation import at_least

__all__ = ["EpsilonLogitsWarper", "EtaLogitsWarper", "TypicalLogitsWarper"]

INFINITY = float("inf")


class TypicalLogitsWarper(LogitsProcessor):
    """Keeps tokens whose surprise is nearest to the entropy, until they hold `mass` (Meister et al. 2022)."""

    numbers: ClassVar[Mapping[str, float]] = {"mass": 2.0, "min_tokens_to_keep": 1}

    def __init__(self, mass: float = 0.9, filter_value: float = -INFINITY, min_tokens_to_keep: int = 1) -> None:
        self.mass = between("typical_p", mass, "(0, 1)", "Leave it out, or give 1.0 to generate(), to switch it off.")
        self.filter_value = filter_value
        self.min_tokens_to_keep = whole("min_tokens_to_keep", min_tokens_to_keep, 1)

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        surprise = -xp.log_softmax(scores)
        distance = xp.abs(surprise - entropy(xp, surprise))
        order = xp.argsort(distance)
        held = xp.cumulative_sum(xp.softmax(xp.take_along_axis(scores, order)))
        last = xp.sum(held < column(xp, self.mass, "float32", scores), keepdims=True)
        rising = xp.take_along_axis(distance, order)
        far = rising > xp.take_along_axis(rising, xp.minimum(last, scores.shape[-1] - 1))
        rank = xp.arange(scores.shape[-1], like=scores)[None, :]
        far = far & (rank >= column(xp, self.min_tokens_to_keep, "int32", scores))
        return xp.where(xp.scatter_set(far, order, far), self.filter_value, scores)

    def stack_key(self) -> Hashable:
        return self.filter_value


class EpsilonLogitsWarper(LogitsProcessor):
    """Removes tokens less probable than epsilon (Hewitt et al. 2022)."""

    numbers: ClassVar[Mapping[str, float]] = {"epsilon": 0.0, "min_tokens_to_keep": 1}

    def __init__(self, epsilon: float, filter_value: float = -INFINITY, min_tokens_to_keep: int = 1) -> None:
        self.epsilon = between("epsilon_cutoff", epsilon, "(0, 1)", "Leave it out to switch it off.")
        self.filter_value = filter_value
        self.min_tokens_to_keep = whole("min_tokens_to_keep", min_tokens_to_keep, 1)

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        unlikely = xp.softmax(scores) < column(xp, self.epsilon, "float32", scores)
        removed = unlikely & (scores < at_least(xp, scores, self.min_tokens_to_keep))
        return xp.where(removed, self.filter_value, scores)

    def stack_key(self) -> Hashable:
        return self.filter_value


class EtaLogitsWarper(LogitsProcessor):
    """Removes tokens less probable than min(epsilon, sqrt(epsilon) * exp(-entropy)) (Hewitt et al. 2022)."""

    numbers: ClassVar[Mapping[str, float]] = {"epsilon": 0.0, "min_tokens_to_keep": 1}

    def __init__(
        self, epsilon: float, filter_value: float = -INFINITY, min_tokens_to_keep: int = 1, device: Any = None
    ) -> None:
        self.epsilon = between("eta_cutoff", epsilon, "(0, 1)", "Leave it out to switch it off.")
        self.filter_value = filter_value
        self.min_tokens_to_keep = whole("min_tokens_to_keep", min_tokens_to_keep, 1)

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        share = xp.exp(-entropy(xp, -xp.log_softmax(scores)))
        root = np.sqrt(self.epsilon) if isinstance(self.epsilon, np.ndarray) else math.sqrt(self.epsilon)
        eta = xp.minimum(share * column(xp, root, "float32", scores), column(xp, self.epsilon, "float32", scores))
        removed = (xp.softmax(scores) < eta) & (scores < at_least(xp, scores, self.min_tokens_to_keep))
        return xp.where(removed, self.filter_value, scores)

    def stack_key(self) -> Hashable:
        return self.filter_value


def entropy(xp: Any, surprise: Any) -> Any:
    """["R 1"]: the entropy of distributions of which surprise ["R V"] is minus the log-probability."""
    counted = xp.where(surprise < INFINITY, surprise, 0.0)
    return xp.sum(counted * xp.exp(-surprise), keepdims=True)
