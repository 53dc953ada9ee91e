"""Holding what a strategy gave against a reference: equal rows, or a step where the reference could not decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.equal.comparison import CLOSE, EXCUSED, first_difference

Rows = Sequence[Sequence[int]]  # new tokens, the best first, end tokens included
SCORE = 1e-4  # how far a sequence's score may be from the reference's: a sum of twenty logarithms in float32


@dataclass
class Tally:
    """What was compared, what was excused and what was wrong."""

    rows: int = 0
    excuses: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def settle(self) -> None:
        """Print every excuse; fail if a row was wrong or too many needed an excuse."""
        for excuse in self.excuses:
            print(f"excused: {excuse}")
        assert self.rows, "nothing was compared"
        assert not self.faults, f"{len(self.faults)} of {self.rows} rows:\n" + "\n".join(self.faults)
        assert len(self.excuses) <= EXCUSED * self.rows, f"{len(self.excuses)} of {self.rows} rows needed an excuse"

    def stepwise(self, what: str, reference: Sequence[int], gaps: Sequence[float], ours: Sequence[int]) -> None:
        """One row, a token a step: it may differ from a step on whose gap[step] is close."""
        self.rows += 1
        step = first_difference(list(reference), list(ours))
        if step is None:
            return
        gap = gaps[step] if step < len(gaps) else 0.0
        seen = f"{what}: step {step}, {list(reference[step : step + 4])} / {list(ours[step : step + 4])}, gap {gap:.2g}"
        (self.excuses if gap < CLOSE else self.faults).append(seen)

    def searched(self, what: str, reference: Rows, gaps: Sequence[float], ours: Rows) -> bool:
        """One search's rows: a close step anywhere excuses, as it decides what came before. Whether they are equal."""
        self.rows += len(reference)
        if [list(row) for row in reference] == [list(row) for row in ours]:
            return True
        gap = min(gaps)
        different = [
            f"row {row} step {first_difference(list(a), list(b))}"
            for row, (a, b) in enumerate(zip(reference, ours, strict=False))
            if list(a) != list(b)
        ]
        seen = f"{what}: {len(reference)} / {len(ours)} rows, {', '.join(different)}, least gap {gap:.2g}"
        (self.excuses if gap < CLOSE else self.faults).append(seen)
        return False

    def scored(self, what: str, reference: Sequence[float], ours: Any) -> None:
        """One search's scores."""
        if any(abs(float(a) - float(b)) > SCORE * max(1, abs(a)) for a, b in zip(reference, ours, strict=True)):
            self.faults.append(f"{what}: scores {list(reference)} / {[float(score) for score in ours]}")
