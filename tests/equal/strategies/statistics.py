"""Chi-square tests without a table: four standard deviations above what chance gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

ENOUGH = 5.0  # a cell is counted by itself if it expects as many


def assert_drawn_from(counts: Mapping[object, int], probabilities: Mapping[object, float]) -> None:
    """The outcomes are draws from these probabilities: nothing impossible, and as often as it should be."""
    draws = sum(counts.values())
    impossible = [outcome for outcome in counts if probabilities.get(outcome, 0.0) <= 0]
    assert not impossible, f"drawn though impossible: {impossible[:5]}"
    expected = np.array([probability * draws for probability in probabilities.values()])
    found = np.array([counts.get(outcome, 0) for outcome in probabilities], float)
    rare = expected < ENOUGH
    expected, found = np.append(expected[~rare], expected[rare].sum()), np.append(found[~rare], found[rare].sum())
    expected, found = expected[expected > 0], found[expected > 0]
    assert_plausible(((found - expected) ** 2 / expected).sum(), len(expected) - 1)


def assert_same_distribution(first: Counter[object], second: Counter[object]) -> None:
    """Two samples come from one distribution, whatever it is."""
    sizes = first.total(), second.total()
    outcomes = [outcome for outcome in first | second if first[outcome] + second[outcome] >= 2 * ENOUGH]
    table = np.array([[counts[outcome] for outcome in outcomes] for counts in (first, second)], float)
    table = np.column_stack([table, np.array(sizes) - table.sum(axis=1)])  # the rare ones together
    table = table[:, table.sum(axis=0) > 0]
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    assert_plausible(((table - expected) ** 2 / expected).sum(), table.shape[1] - 1)


def assert_plausible(statistic: float, freedom: int) -> None:
    """A chi-square statistic is not far above its mean."""
    assert freedom > 0, "there was only one outcome"
    limit = freedom + 4 * np.sqrt(2 * freedom)
    assert statistic < limit, f"chi-square {statistic:.1f} with {freedom} degrees of freedom, limit {limit:.1f}"
