"""Truncation by probability against the distribution's entropy: typical, epsilon and eta sampling."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

from fabula import arrays
from fabula.context import Context
from fabula.processors.arguments import between, whole
from fabula.processors.processor import LogitsProcessor, column
from fabula.processors.truncation import at_least, is_one

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
        chances = xp.log_softmax(scores)
        probabilities = xp.exp(chances)
        distance = xp.abs(entropy(xp, chances, probabilities) + chances)
        reach = xp.mass_reach(distance, probabilities, column(xp, self.mass, "float32", scores))
        if not is_one(self.min_tokens_to_keep):
            reach = xp.maximum(reach, -at_least(xp, -distance, self.min_tokens_to_keep))
        return xp.without(scores, distance > reach, self.filter_value)

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
        return xp.without(scores, removed, self.filter_value)

    def stack_key(self) -> Hashable:
        return self.filter_value


class EtaLogitsWarper(LogitsProcessor):
    """Removes tokens less probable than min(epsilon, sqrt(epsilon) * exp(-entropy)) (Hewitt et al. 2022)."""

    numbers: ClassVar[Mapping[str, float]] = {"epsilon": 0.0, "root": 0.0, "min_tokens_to_keep": 1}

    def __init__(
        self, epsilon: float, filter_value: float = -INFINITY, min_tokens_to_keep: int = 1, device: Any = None
    ) -> None:
        self.epsilon = between("eta_cutoff", epsilon, "(0, 1)", "Leave it out to switch it off.")
        self.root = math.sqrt(self.epsilon)
        self.filter_value = filter_value
        self.min_tokens_to_keep = whole("min_tokens_to_keep", min_tokens_to_keep, 1)

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        chances = xp.log_softmax(scores)
        probabilities = xp.exp(chances)
        share = xp.exp(-entropy(xp, chances, probabilities))
        root, epsilon = (column(xp, value, "float32", scores) for value in (self.root, self.epsilon))
        eta = xp.minimum(share * root, epsilon)
        removed = (probabilities < eta) & (scores < at_least(xp, scores, self.min_tokens_to_keep))
        return xp.without(scores, removed, self.filter_value)

    def stack_key(self) -> Hashable:
        return self.filter_value


def entropy(xp: Any, chances: Any, probabilities: Any) -> Any:
    """["R 1"]: the entropy of distributions, given as log-probabilities and probabilities ["R V"]."""
    return -xp.sum(xp.where(probabilities > 0, chances, 0.0) * probabilities, keepdims=True)
