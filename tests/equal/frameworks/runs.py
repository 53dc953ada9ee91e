"""Holds what a framework gives for a call against the reference: tokens, and everything else that the call shows."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.equal.comparison import Tally
from tests.equal.frameworks.doors import Door
from tests.equal.frameworks.reference import Reference, new_tokens

NEAR = 1e-4  # how far numbers may be from the reference's, by the size of the largest
UNDECIDED = float("inf")  # the gap of a search, which is no excuse


def hold_tokens(tally: Tally, what: str, reference: Reference, rows: list[list[int]]) -> list[int]:
    """New tokens; how many steps of each row are those of the reference."""
    if reference.gaps is None:
        tally.searched(what, reference.rows, [UNDECIDED], rows)
        return [len(row) for row in reference.rows]
    assert len(rows) == len(reference.rows)
    pairs = zip(reference.rows, reference.gaps, rows, strict=True)
    found = [tally.stepwise(f"{what} row {row}", *pair) for row, pair in enumerate(pairs)]
    return [len(row) if step is None else step for step, row in zip(found, rows, strict=True)]


def hold_output(tally: Tally, what: str, reference: Reference, door: Door, output: Any, before: np.ndarray) -> None:
    """All of an answer, of which the columns of the mask `before` are given.

    Where a row differs, scores are compared up to there, and what else the call shows is not.
    """
    assert list(output.keys()) == [name for name in reference.output if not name.endswith(door.lacks)]
    same = hold_tokens(tally, what, reference, new_tokens(door.on_host(output.sequences), before))
    if tally.faults:
        return
    if all(steps == len(row) for steps, row in zip(same, reference.rows, strict=True)):
        for name in output.keys() - {"past_key_values"}:
            assert_same(door, output[name], reference.output[name])
        return
    for step, (ours, right) in enumerate(zip(output.scores, reference.output.scores, strict=False)):
        rows = [row for row, steps in enumerate(same) if step <= steps]
        assert_near(door.on_host(ours)[rows], np.asarray(right)[rows])


def assert_same(door: Door, ours: Any, right: Any) -> None:
    """Equal whole numbers, and floats near each other, in any nesting."""
    if right is None or isinstance(right, str):
        assert ours == right
    elif isinstance(right, (tuple, list)):
        assert len(ours) == len(right)
        for pair in zip(ours, right, strict=True):
            assert_same(door, *pair)
    else:
        number = isinstance(right, (int, float))
        assert_near(np.asarray(ours) if number else door.on_host(ours), np.asarray(right))


def assert_near(ours: np.ndarray, right: np.ndarray) -> None:
    """Two arrays."""
    assert ours.shape == right.shape
    if right.dtype.kind == "f":
        finite = np.isfinite(right)
        size = np.abs(right[finite]).max(initial=1e-6)
        np.testing.assert_allclose(ours / size, right / size, rtol=NEAR, atol=NEAR)
    else:
        np.testing.assert_array_equal(ours, right)
