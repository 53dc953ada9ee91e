"""How many tokens to draft: a fixed number, or one that follows how many of them stood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from fabula.errors import ArgumentError

__all__ = ["DraftLength", "Schedule"]

Schedule = Literal["constant", "heuristic", "heuristic_transient"]


@dataclass(frozen=True, slots=True)
class DraftLength:
    """A row starts with `number`. The heuristics of transformers: two more where all stood, else one less."""

    number: int = 20
    schedule: Schedule = "constant"

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ArgumentError(f"`num_assistant_tokens` must be at least 1, got {self.number}. Try 5.")
        if self.schedule not in get_args(Schedule):
            raise ArgumentError(
                f"`num_assistant_tokens_schedule` must be one of {', '.join(get_args(Schedule))}, "
                f"got {self.schedule!r}. Leave it out for a constant number."
            )

    @property
    def outlives(self) -> bool:
        """Whether the number that a row ends with is the one that the next call starts with."""
        return self.schedule == "heuristic"

    def after(self, number: int, proposed: int, kept: int) -> int:
        """The number that follows, once `kept` of `proposed` drafts stood."""
        if self.schedule == "constant" or proposed == 0:
            return number
        return number + 2 if kept == proposed else max(1, number - 1)
