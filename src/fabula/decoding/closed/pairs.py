"""What a model computes of closed rows: each of them and, where rows are guided, the same after a negative prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Pairs", "pairs_of"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """R rows that the model computes as M = R * each, one row's behind the other's."""

    xp: Any
    each: int  # 1; or 2: each row, and behind it the same new tokens after a negative prompt
    offsets: Any  # Int["M"]: how far behind its row's own position each is; of no use where each is 1

    def spread(self, values: Any) -> Any:
        """["M"] of ["R"]."""
        return values if self.each == 1 else self.xp.repeat(values, self.each)

    def positions(self, position: Any) -> Any:
        """Int["M"] of the rows' own, Int["R"]."""
        return position if self.each == 1 else self.spread(position) + self.offsets

    def members(self, rows: Any) -> Any:
        """Int["M"]: the model's rows of the rows Int["R"] that are named."""
        if self.each == 1:
            return rows
        first = self.xp.repeat(rows * self.each, self.each)
        return first + self.xp.arange(first.shape[0], like=first) % self.each

    def own(self, found: Any) -> Any:
        """["R ..."]: what was found of the rows, of ["M ..."]."""
        return found if self.each == 1 else found[:: self.each]

    def negative(self, found: Any) -> Any | None:
        """["R ..."]: what was found after their negative prompts; None where there are none."""
        return None if self.each == 1 else found[1 :: self.each]


def pairs_of(xp: Any, each: int, position: Any) -> Pairs:
    """The model's rows, by the positions Int["M"] at which they begin."""
    return Pairs(xp, each, None if each == 1 else position - xp.repeat(position[::each], each))
