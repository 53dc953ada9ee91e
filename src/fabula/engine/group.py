"""Rows that choose together: one row of a strategy, or all the rows of a search."""

from __future__ import annotations

from typing import Any

import numpy as np

from fabula.cache.blocks import BlockPool
from fabula.decoding.strategy import Move
from fabula.engine.request import Request
from fabula.engine.row import Row, stops_of


class Group:
    """One sequence of a request, or one search; the engine's to change."""

    __slots__ = ("carry", "index", "leader", "preempted", "request", "rows", "search", "settled")

    def __init__(self, request: Request, index: int, pool: BlockPool, leader: Group | None = None) -> None:
        self.request = request
        self.index = index  # the first of the request's results that it gives
        self.leader = leader  # the group whose prompt's cache this one forks
        self.search = request.recipe.search
        self.rows = [_row(request, index, pool, leader is None)]
        self.carry: Any = None  # a search's own
        self.settled = 0  # tokens of a search that have been shown
        self.preempted = 0  # how often its cache was taken away

    @property
    def width(self) -> int:
        """The most rows that it will have in the cache."""
        most = 1 if self.search is None else self.search.width
        return most if self.request.negative is None else 2 * most

    @property
    def drafts_first(self) -> bool:
        """Whether it chooses nothing, not even its first token, before a drafter was asked."""
        return bool(getattr(self.request.recipe.strategy, "reads_guesses", False))

    @property
    def members(self) -> list[Row]:
        """The rows, each with that of its negative prompt behind it."""
        return self.rows if self.request.negative is None else [member for row in self.rows for member in row.members]

    def start(self) -> None:
        """Takes over what is already computed."""
        for row in self.rows:
            row.start(None if self.leader is None else self.leader.rows[0])
        self.leader = None

    def release(self) -> None:
        """Gives the blocks back; they can be found again."""
        for row in self.rows:
            row.release()

    def move(self, move: Move) -> None:
        """The rows become what a search says."""
        old, taken, rows = self.rows, set(), []
        for parent in move.parents.tolist():
            rows.append(old[parent].fork() if parent in taken else old[parent])
            taken.add(parent)
        self.rows = rows
        for place, row in enumerate(old):
            if place not in taken:
                row.leave()
        for place, (row, token) in enumerate(zip(self.rows, move.tokens.tolist(), strict=True)):
            row.completes_stop_string(token)
            row.append(token)
            row.stream = self.request.stream + place

    def become_one(self, written: np.ndarray) -> None:
        """The rows become the first of them, in whose blocks these tokens are computed, in place of its last one."""
        first, *others = self.rows
        for row in others:
            row.leave()
        self.rows = [first]
        for row in first.members:
            row.length -= 1
        for token in written.tolist():
            first.append(token)
        for row in first.members:
            row.advance(len(written))

    def descend(self, move: Move) -> None:
        """The rows become what many turns made of them: each keeps the blocks that it was given for them.

        What lies before those blocks is its ancestor's; in them lies, from their start on, what the new row computed.
        """
        ancestors = [self.rows[parent] for parent in move.parents.tolist()]
        pasts = [[member.past_blocks() for member in ancestor.members] for ancestor in ancestors]
        for row, past, tokens in zip(self.rows, pasts, move.tokens, strict=True):
            for member, (prefix, text) in zip(row.members, past, strict=True):
                member.table.adopt(prefix)
                member.tokens = text
            for token in tokens.tolist():
                row.append(token)
            for member in row.members:
                member.advance(len(tokens))


def groups_of(request: Request, pool: BlockPool) -> list[Group]:
    """The request's sequences, of which the first computes the prompt, or its one search."""
    leader = Group(request, 0, pool)
    count = request.rows if leader.search is None else 1
    return [leader, *(Group(request, index, pool, leader) for index in range(1, count))]


def _row(request: Request, index: int, pool: BlockPool, leads: bool) -> Row:
    """A new row of the request; `leads`: what is wanted of the whole prompt is this one's to give."""
    recipe = request.recipe
    shared = request.memory is None and request.vectors is None
    most, salt = recipe.limits.max_length - len(request.prompt), request.salt if shared else None
    row = Row(request.prompt, most, pool, salt=salt)
    row.stream = request.stream + index
    row.stops = stops_of(recipe.limits)
    row.memory, row.vectors = request.memory, request.vectors
    row.blind = request.blind
    row.past = request.past
    if leads and recipe.wants_whole_prompt:
        row.scored_from = 0
        row.at_once = recipe.wants_outputs
    if request.negative is not None:
        row.negative = Row(request.negative, most, pool, salt=salt)
    return row
