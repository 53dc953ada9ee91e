"""Holding rows of tokens against a reference's: equal, or different first where the reference could not decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

CLOSE = 1e-4  # two deciding scores nearer than this may fall either way
EXCUSED = 0.01  # the share of rows that may have such a step
SCORE = 1e-4  # how far a sequence's score may be from the reference's: a sum of twenty logarithms in float32

Rows = Sequence[Sequence[int]]  # new tokens, the best first, end tokens included


def first_difference(reference: Sequence[int], ours: Sequence[int]) -> int | None:
    """The first step at which two rows of new tokens differ, or None."""
    for step in range(max(len(reference), len(ours))):
        if step >= len(reference) or step >= len(ours) or reference[step] != ours[step]:
            return step
    return None


@dataclass
class Tally:
    """What was compared, what was excused and what was wrong. Excuses are printed as they are found."""

    rows: int = 0
    excuses: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @contextmanager
    def case(self) -> Iterator[Tally]:
        """Within, a part of the comparison, which fails by itself if a row was wrong."""
        own = Tally()
        yield own
        self.rows += own.rows
        self.excuses += own.excuses
        assert not own.faults, "\n".join(own.faults)

    def settle(self) -> None:
        """Fail if nothing was compared, a row was wrong, or too many needed an excuse."""
        assert self.rows, "nothing was compared"
        assert not self.faults, f"{len(self.faults)} of {self.rows} rows:\n" + "\n".join(self.faults)
        assert len(self.excuses) <= EXCUSED * self.rows, f"{len(self.excuses)} of {self.rows} rows needed an excuse"

    def stepwise(self, what: str, reference: Sequence[int], gaps: Sequence[float], ours: Sequence[int]) -> int | None:
        """One row, a token a step: the step at which it differs, or None. A step where both have a token has an excuse
        if its gap is close; a row that ends elsewhere has none.
        """
        self.rows += 1
        step = first_difference(reference, ours)
        if step is not None:
            gap = gaps[step] if step < min(len(reference), len(ours)) else float("inf")
            tokens = f"{list(reference[step : step + 4])} / {list(ours[step : step + 4])}"
            self._differs(f"{what}: step {step}, {tokens}", gap)
        return step

    def searched(self, what: str, reference: Rows, gaps: Sequence[float], ours: Rows) -> bool:
        """One search's rows: a close step anywhere excuses, as it decides what came before. Whether they are equal."""
        self.rows += len(reference)
        if [list(row) for row in reference] == [list(row) for row in ours]:
            return True
        different = [
            f"row {row} step {first_difference(a, b)}"
            for row, (a, b) in enumerate(zip(reference, ours, strict=False))
            if list(a) != list(b)
        ]
        self._differs(f"{what}: {len(reference)} / {len(ours)} rows, {', '.join(different)}", min(gaps))
        return False

    def scored(self, what: str, reference: Sequence[float], ours: Any) -> None:
        """One search's scores."""
        if any(abs(float(a) - float(b)) > SCORE * max(1, abs(a)) for a, b in zip(reference, ours, strict=True)):
            self.faults.append(f"{what}: scores {list(reference)} / {[float(score) for score in ours]}")

    def _differs(self, what: str, gap: float) -> None:
        seen = f"{what}, gap {gap:.2g}"
        if gap < CLOSE:
            self.excuses.append(seen)
            print(f"excused: {seen}")
        else:
            self.faults.append(seen)
