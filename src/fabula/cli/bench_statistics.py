"""Samples of many rounds in three numbers, and ratios of samples that were taken side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Summary:
    """The middle of some samples, and how far they spread."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Summary:
        """Of at least one sample."""
        return cls(median(samples), min(samples), max(samples))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours to theirs, round by round: what slowed a round down slowed both."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]
