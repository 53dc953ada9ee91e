"""A row: what it has to compute, and how much of that is in the cache."""

from __future__ import annotations

import numpy as np

from fabula.cache.blocks import BLOCK, BlockPool, Table
from fabula.decoding.recipe import TextPieces
from fabula.engine.request import Request
from fabula.text.stop_strings import StopStrings


class Row:
    """One continuation of a request's prompt; the engine's to change."""

    __slots__ = ("computed", "index", "leader", "length", "preempted", "request", "stops", "table", "tokens")

    def __init__(self, request: Request, index: int, pool: BlockPool, leader: Row | None = None) -> None:
        limits = request.recipe.limits
        self.request = request
        self.index = index  # among the request's rows
        self.leader = leader  # the row whose prompt's cache this one forks
        self.length = len(request.prompt)
        self.tokens = np.zeros(limits.max_length, np.int32)  # [0, length) count
        self.tokens[: self.length] = request.prompt
        self.computed = 0  # positions in the cache
        self.table = Table(pool)
        self.preempted = 0  # how often its cache was taken away
        self.stops = _stop_matcher(request)

    @property
    def missing(self) -> int:
        """Positions still to be computed before the next token can be chosen."""
        return self.length - self.computed

    @property
    def prompt_length(self) -> int:
        return len(self.request.prompt)

    def start(self) -> None:
        """Takes over what is already computed: the leader's prompt, or a prefix that is still in the cache."""
        if self.leader is not None and self.leader.computed >= self.length:
            self.computed = self.length - 1
            self.table = self.leader.table.fork(self.computed)
        else:
            pool = self.table.pool
            for block in pool.prefixes.find(self.tokens[: self.length], BLOCK, self.request.salt):
                pool.hold(block)
                self.table.blocks.append(block)
            self.computed = len(self.table.blocks) * BLOCK
        self.leader = None

    def release(self) -> None:
        """Gives the blocks back; the full ones can be found again by their tokens."""
        pool = self.table.pool
        pool.prefixes.add(self.tokens[: self.computed], BLOCK, self.table.blocks, self.request.salt)
        self.table.truncate(0)
        self.computed = 0

    def append(self, token: int) -> None:
        """The chosen token becomes part of what has to be computed."""
        self.tokens[self.length] = token
        self.length += 1

    def completes_stop_string(self, token: int) -> bool:
        """Whether the new tokens' text, with this one, contains a stop string."""
        if self.stops is None:
            return False
        pieces, matcher = self.stops
        return matcher.put(pieces.put(token))[1] is not None


def _stop_matcher(request: Request) -> tuple[TextPieces, StopStrings] | None:
    limits = request.recipe.limits
    if not limits.stop_strings or limits.pieces is None:
        return None
    return limits.pieces(), StopStrings(limits.stop_strings)
