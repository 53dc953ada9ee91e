"""Heads as codes of 8 or 4 bits: turned so that no feature stands out, then codes of which a group shares a scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_STEP = 1e-7  # what a group is divided by whose features are all the same


@dataclass(frozen=True, slots=True)
class Coding:
    """How the features of one head at one position become bytes: its codes, and then its scales.

    4-bit codes of two neighbouring features share a byte, the first in its lower half. The scales are Float16 pairs, a
    step and a base for each group: feature = code * step + base.
    """

    features: int  # of a head
    bits: int  # of a code: 8 or 4
    group: int  # features that share a scale, at most

    @property
    def width(self) -> int:
        """Features of a group."""
        return min(self.group, self.features)

    @property
    def padded(self) -> int:
        """A head's features, in whole groups and whole bytes."""
        count = -(-self.features // self.width) * self.width
        return count + (count % 2) * self.width

    @property
    def groups(self) -> int:
        """Of a head."""
        return self.padded // self.width

    @property
    def code_bytes(self) -> int:
        """Of a head's codes."""
        return self.padded * self.bits // 8

    @property
    def nbytes(self) -> int:
        """Of a head at one position."""
        return self.code_bytes + 4 * self.groups

    @property
    def most(self) -> int:
        """The largest code."""
        return int(2**self.bits - 1)


def hadamard(features: int) -> np.ndarray:
    """An orthogonal matrix, Float32["features features"], that spreads each feature evenly over as many as it can.

    With it a feature that stands out does not take the codes of its group (Ashkboos et al. 2024, QuaRot). It is
    symmetric, so that it turns back too.
    """
    size = features & -features  # the largest power of two that divides it
    turn = np.ones((1, 1), np.float32)
    while len(turn) < size:
        turn = np.kron(np.array([[1, 1], [1, -1]], np.float32), turn)
    return np.kron(np.eye(features // size, dtype=np.float32), turn * np.float32(size**-0.5))
