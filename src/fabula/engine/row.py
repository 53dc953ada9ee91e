"""A row: what it has to compute, and how much of that is in the cache."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np

from fabula.cache.blocks import BLOCK, BlockPool, Table
from fabula.cache.kept import Continued
from fabula.decoding.recipe import Limits, TextPieces
from fabula.text.stop_strings import StopStrings

Stops = tuple[TextPieces, StopStrings]  # a row's text, and the stop strings it may contain


class Row:
    """One continuation of a prompt; the engine's to change."""

    __slots__ = (
        "at_once",
        "blind",
        "computed",
        "drafts",
        "length",
        "memory",
        "negative",
        "past",
        "prompt_length",
        "prompt_scores",
        "salt",
        "scored_from",
        "stops",
        "stream",
        "table",
        "tokens",
        "vectors",
        "writable",
    )

    def __init__(self, prompt: np.ndarray, most: int, pool: BlockPool, *, salt: bytes | None = b"") -> None:
        """`most`: new tokens; `salt` None: its blocks are nobody else's, since more than tokens is in them."""
        self.length = self.prompt_length = len(prompt)
        self.tokens = np.zeros(self.length + most, np.int32)  # [0, length + drafts) count
        self.tokens[: self.length] = prompt
        self.drafts = 0  # tokens behind `length` that wait to be judged
        self.computed = 0  # positions in the cache
        self.writable = 0  # positions that its blocks hold and that no other row reads
        self.scored_from: int | None = None  # the first position whose output is wanted; None: the last token's
        self.table = Table(pool)
        self.salt = salt
        self.stream = 0
        self.stops: Stops | None = None
        self.negative: Row | None = None  # the same new tokens after a negative prompt
        self.prompt_scores: list[Any] = []  # so far, where the prompt is scored
        self.memory: Any = None
        self.vectors: Any = None
        self.blind = 0  # tokens at the start that nobody shall see
        self.past: Continued | None = None  # what was computed of it before it began
        self.at_once = False  # whether its prompt is computed in one step, since its outputs belong together

    @property
    def members(self) -> list[Row]:
        """What is computed of it: itself, and the same after a negative prompt."""
        return [self] if self.negative is None else [self, self.negative]

    @property
    def missing(self) -> int:
        """Positions still to be computed before the next token can be chosen."""
        return self.length + self.drafts - self.computed

    @property
    def seen(self) -> np.ndarray:
        """Int["L"]: the tokens that processors and criteria may see."""
        return self.tokens[self.blind : self.length]

    @property
    def tail(self) -> int:
        """The last positions, which say what comes next."""
        return 1 + self.drafts

    @property
    def wanted_from(self) -> int:
        """The first position whose output is wanted."""
        return self.length - 1 if self.scored_from is None else self.scored_from

    def start(self, leader: Row | None) -> None:
        """Takes over what is already computed: the leader's prompt, or a prefix that is still in the cache."""
        if leader is not None and leader.computed >= self.length and leader.table.serves(self.length - 1):
            self.computed = self.length - 1
            self.table = leader.table.fork(self.computed)
        elif self.scored_from is None:
            self._find()
        if self.negative is not None:
            self.negative.start(None if leader is None else leader.negative)

    def _find(self) -> None:
        """Takes over what is found by its tokens, or what the row continues, whichever is more."""
        pool = self.table.pool
        found = [] if self.salt is None else pool.prefixes.find(self.tokens[: self.length], BLOCK, self.salt)
        past = 0 if self.past is None or self.past.row.table.pool is not pool else self.past.usable(self.length)
        if self.past is not None and past > len(found) * BLOCK and self.past.row.table.serves(past):
            self.table, self.computed = self.past.row.table.fork(past), past
            return
        for block in found:
            pool.hold(block)
            self.table.blocks.append(block)
        self.computed = len(found) * BLOCK

    def release(self) -> None:
        """Gives the blocks back; the full ones can be found again by their tokens."""
        pool = self.table.pool
        if self.salt is not None and self.table.behind == 0:
            pool.prefixes.add(self.tokens[: self.computed], BLOCK, self.table.blocks, self.salt)
        self.drop()
        if self.negative is not None:
            self.negative.release()

    def drop(self) -> None:
        """Gives the blocks back; drafts fall."""
        self.table.truncate(0)
        self.computed = self.writable = self.drafts = 0
        self.prompt_scores = []

    def leave(self) -> None:
        """Gives all its blocks back, those of its negative prompt too."""
        for member in self.members:
            member.drop()

    def past_blocks(self) -> tuple[Table, np.ndarray]:
        """What is computed in full blocks, held once more, and a copy of the tokens."""
        return self.table.fork(self.computed // BLOCK * BLOCK), self.tokens.copy()

    def advance(self, count: int) -> None:
        """So many more positions are in the cache; those that no window reaches any more leave it."""
        self.computed += count
        self.table.give_up(min(self.computed, self.length - 1))

    def append(self, token: int) -> None:
        """The chosen token becomes part of what has to be computed."""
        self.tokens[self.length] = token
        self.length += 1
        if self.negative is not None:
            self.negative.append(token)

    def draft(self, tokens: np.ndarray) -> None:
        """Puts tokens behind the last one, to be computed and judged with it."""
        self.drafts = len(tokens)
        self.tokens[self.length : self.length + self.drafts] = tokens
        if self.negative is not None:
            self.negative.draft(tokens)

    def settle(self, length: int) -> None:
        """After the first `length` positions nothing in the cache counts any more: drafts fell."""
        self.forget(length)
        if self.negative is not None:
            self.negative.forget(length - self.prompt_length + self.negative.prompt_length)

    def forget(self, length: int) -> None:
        """The same, of what is computed after the prompt alone."""
        self.drafts = 0
        if self.computed > length:
            self.computed = length
            self.table.truncate(length)
            self.writable = min(self.writable, len(self.table.blocks) * BLOCK)

    def fork(self) -> Row:
        """A second row that has the same past; nothing in the cache is copied until one of the two writes."""
        twin = object.__new__(Row)
        for name in Row.__slots__:  # several times as fast as copy()
            setattr(twin, name, getattr(self, name))
        twin.tokens = self.tokens.copy()
        twin.table = self.table.fork(self.computed)
        twin.stops = fork_stops(self.stops)
        self.writable = twin.writable = 0
        twin.negative = None if self.negative is None else self.negative.fork()
        return twin

    def completes_stop_string(self, token: int) -> bool:
        """Whether the new tokens' text, with this one, contains a stop string; it is part of the row from then on."""
        return self.stops is not None and _completes(self.stops, token)

    def would_complete_stop_string(self, token: int) -> bool:
        """Whether it would, with this one."""
        stops = fork_stops(self.stops)
        return stops is not None and _completes(stops, token)


def stops_of(limits: Limits) -> Stops | None:
    """Where a new row's text meets its stop strings, if it has any."""
    if not limits.stop_strings or limits.pieces is None:
        return None
    return limits.pieces(), StopStrings(limits.stop_strings)


def fork_stops(stops: Stops | None) -> Stops | None:
    """The same text once more, to be continued otherwise."""
    return None if stops is None else (stops[0].fork(), copy(stops[1]))


def _completes(stops: Stops, token: int) -> bool:
    pieces, matcher = stops
    return matcher.put(pieces.put(token))[1] is not None
