"""A request in the engine: what runs for it, and when it ends."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from fabula.decoding.strategy import Ends, FinishReason
from fabula.engine.group import Group
from fabula.engine.request import Request
from fabula.engine.row import Row


@dataclass(eq=False, slots=True)
class Ticket:
    """A request in the engine."""

    request: Request
    started: float = field(default_factory=time.monotonic)
    groups: list[Group] = field(default_factory=list)  # those that have not ended
    cancelled: bool = False
    done: bool = False

    def reason_to_end(self, row: Row, token: int, completes: bool) -> FinishReason | None:
        """Why the row ends with `token`, which is its last; `completes`: a stop string."""
        limits = self.request.recipe.limits
        if token in limits.eos or completes:
            return "stop"
        if limits.ends and any(ends(row.seen, row.prompt_length - row.blind) for ends in limits.ends):
            return "stop"
        return self._reason_of_size(row.length)

    def ends(self, group: Group) -> Ends:
        """Says of a search's rows why they would end with one more token."""
        limits = self.request.recipe.limits

        def reason(place: int, token: int) -> FinishReason | None:
            row = group.rows[place]
            if token in limits.eos or (row.stops is not None and row.would_complete_stop_string(token)):
                return "stop"
            if limits.ends:
                tokens = np.append(row.seen, np.int32(token))
                if any(ends(tokens, row.prompt_length - row.blind) for ends in limits.ends):
                    return "stop"
            return self._reason_of_size(row.length + 1)

        return reason

    def _reason_of_size(self, length: int) -> FinishReason | None:
        limits = self.request.recipe.limits
        if length >= limits.max_length:
            return "length"
        if limits.max_time is not None and time.monotonic() - self.started > limits.max_time:
            return "time"
        return None
