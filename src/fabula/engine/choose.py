"""The step from logits to tokens, for all rows that choose in this step, whatever each of them asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate
from typing import Any, cast

import numpy as np

from fabula.decoding.plain_rows import Sampler, plain_numbers
from fabula.decoding.recipe import Recipe
from fabula.decoding.sample import SAMPLE
from fabula.decoding.strategy import Choice, Ends, Guesser, Move, Search, Tapped, Turn, Underway
from fabula.engine.group import Group
from fabula.engine.recording import kept_of, steps_of
from fabula.engine.request import Kept, Request, Step
from fabula.engine.row import Row
from fabula.engine.seats import Board, Pieces, Seats, seats_of
from fabula.kernels.sampling import RowChoice
from fabula.ops.protocol import Forward
from fabula.processors.rows import Stacked, stack

Spans = dict[int, tuple[int, int]]  # id(row) -> its outputs are [first, end) of a pass's scored positions
Chosen = tuple[Group, list[Step] | Move, Kept | None]  # a strategy's tokens, or a search's move and what is kept of it


@dataclass(frozen=True, slots=True)
class Chain:
    """The processors of some places as one function, and as a backend's plain numbers where all of them are."""

    recipes: list[Recipe]
    process: Stacked
    numbers: list[dict[str, float]] | None

    @classmethod
    def of(cls, recipes: list[Recipe], known: Chain | None, plain: bool) -> Chain:
        """That of these recipes: the known one, if they are its own; `plain`: whether a backend asks for numbers."""
        if known is not None and len(recipes) == len(known.recipes) and all(map(_same, recipes, known.recipes)):
            return known
        numbers = [plain_numbers(recipe) for recipe in recipes] if plain else [None]
        every = None if None in numbers else [one for one in numbers if one is not None]
        return cls(recipes, stack([recipe.processors for recipe in recipes]), every)


@dataclass(frozen=True, slots=True)
class Party:
    """Groups that take a turn together, and what their places have in common from step to step."""

    groups: list[Group]
    seats: Seats
    places: list[range]  # of each group
    requests: list[Request]  # of each place
    chain: Chain
    board: Board

    @property
    def search(self) -> Search | None:
        """That of its groups, if they search."""
        return self.groups[0].search


class Chooser:
    """Chooses tokens; remembers how the rows of the last step were brought together."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        """`sampler`: the backend's own way to choose for rows whose processors are plain numbers."""
        self._sampler = sampler
        self._groups: list[Group] = []
        self._spans: Spans = {}
        self._parties: dict[Any, Party] = {}

    def choose(
        self,
        groups: list[Group],
        forward: Forward,
        spans: Spans,
        ends: Callable[[Group], Ends],
        fail: Callable[[Request, BaseException], None],
    ) -> list[Chosen]:
        """What each group does next. `ends` says of a search's rows when they would end.

        `fail` is told of each request whose strategy or processors raise; the others are answered.
        """
        if groups is self._groups and spans is self._spans:  # the same rows, a token further
            for party in self._parties.values():
                party.seats.advance()
        else:
            self._groups, self._spans, self._parties = groups, spans, self._gathered(groups, spans)
        chosen: list[Chosen] = []
        for party in self._parties.values():
            chosen += self._answered(party, forward, ends, fail)
        return chosen

    def _gathered(self, groups: list[Group], spans: Spans) -> dict[Any, Party]:
        """The groups that take a turn together: those of equal strategies, and apart where one is guided.

        Those that search are at the same point of it, too.
        """
        members: dict[Any, list[Group]] = {}
        for group in groups:
            recipe = group.request.recipe
            point = None if group.search is None else (len(group.rows), group.carry is None, recipe.sampled)
            members.setdefault((recipe.strategy, group.request.negative is None, point), []).append(group)
        return {key: self._party(some, spans, self._parties.get(key)) for key, some in members.items()}

    def _party(self, groups: list[Group], spans: Spans, before: Party | None = None) -> Party:
        """These groups together; what the party was in the last step serves as far as it is the same."""
        seats = seats_of([row for group in groups for row in group.rows], spans)
        ends = list(accumulate(len(group.rows) for group in groups))
        places = [
            range(seats.spans[end - len(group.rows)][0], seats.spans[end - 1][1])
            for group, end in zip(groups, ends, strict=True)
        ]
        requests = [group.request for group, own in zip(groups, places, strict=True) for _ in own]
        known, board = (None, Board()) if before is None else (before.chain, before.board)
        chain = Chain.of([request.recipe for request in requests], known, self._sampler is not None)
        return Party(groups, seats, places, requests, chain, board)

    def _answered(
        self,
        party: Party,
        forward: Forward,
        ends: Callable[[Group], Ends],
        fail: Callable[[Request, BaseException], None],
    ) -> list[Chosen]:
        """What the party does; where somebody's processors raise, each request is asked alone."""
        requests = {id(group.request): group.request for group in party.groups}
        try:
            return self._strategy(party, forward) if party.search is None else self._search(party, forward, ends)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if len(requests) == 1:
                fail(party.groups[0].request, error)
                return []
        chosen: list[Chosen] = []
        for request in requests.values():
            alone = self._party([group for group in party.groups if group.request is request], party.seats.computed)
            chosen += self._answered(alone, forward, ends, fail)
        return chosen

    def _strategy(self, party: Party, forward: Forward) -> list[Chosen]:
        """The tokens of groups of one strategy, a row each; of a row with drafts, as many as may stand."""
        seats, recipes = party.seats, party.chain.recipes
        logits = seats.take(forward.logits)
        strategy: Any = recipes[0].strategy
        tokens = self._sampled_by_backend(party, logits) if strategy is SAMPLE else None
        choice = strategy.choose(_turn(party, forward, logits)) if tokens is None else Choice(tokens)
        steps = steps_of([recipe.record for recipe in recipes], logits, choice, forward, seats)
        return [
            (group, steps[own.start : own.stop], None) for group, own in zip(party.groups, party.places, strict=True)
        ]

    def _search(self, party: Party, forward: Forward, ends: Callable[[Group], Ends]) -> list[Chosen]:
        """The moves of groups of one search."""
        assert party.search is not None
        logits = party.seats.take(forward.logits)
        underway = [Underway(group.carry, ends(group)) for group in party.groups]
        moves = party.search.advance(_turn(party, forward, logits), underway)
        return [
            (group, move, kept_of(group.request.recipe.record, move.scores, logits, forward, party.seats, own))
            for group, move, own in zip(party.groups, moves, party.places, strict=True)
        ]

    def _sampled_by_backend(self, party: Party, logits: Any) -> np.ndarray | None:
        """The tokens, if the backend's sampler can choose all of them."""
        seats, numbers = party.seats, party.chain.numbers
        if self._sampler is None or numbers is None or seats.rows[0].negative is not None:
            return None
        places = zip(seats.rows, seats.lengths, party.requests, numbers, strict=True)
        choices = [_row_choice(*place) for place in places]
        tokens = self._sampler(logits, choices)
        return None if (tokens < 0).any() else tokens


def _turn(party: Party, forward: Forward, logits: Any) -> Turn:
    """What the party's strategy is given."""
    seats, spans, negative = party.seats, party.seats.computed, None
    if seats.rows[0].negative is not None:
        negative = seats_of([row.negative for row in seats.distinct if row.negative is not None], spans)
        negative = negative.take(forward.logits)
    sampled = [recipe.sampled for recipe in party.chain.recipes]
    draw = seats.draw([request.seed for request in party.requests], sampled)
    layers = forward.layer_logits
    tapped = Tapped(
        () if forward.hidden is None else Pieces(forward.hidden, [spans[id(row)] for row in seats.rows]),
        None if forward.hidden is None else seats.take(forward.hidden),
        None if layers is None else {layer: seats.take(values) for layer, values in layers.items()},
    )
    known = cache(partial(party.board.context, seats, logits, negative))
    guesses = _guesses(party) if party.groups[0].drafts_first else ()
    return Turn(logits, party.chain.process, known, draw, tapped, guesses)


def _guesses(party: Party) -> list[Any]:
    """For each place what its draft was drawn from; None behind the last one."""
    found: list[Any] = []
    for row, group in zip(party.seats.distinct, party.groups, strict=True):
        drafter = cast(Guesser, group.request.recipe.drafter)
        found += [*(drafter.guesses(id(row))[: row.drafts] if row.drafts else ()), None]
    return found


def _row_choice(row: Row, length: int, request: Request, numbers: dict[str, Any]) -> RowChoice:
    seen = row.tokens[row.blind : length]
    return RowChoice(**numbers, seed=request.seed, stream=row.stream, position=length, tokens=seen)


def _same(recipe: Recipe, other: Recipe) -> bool:
    return recipe is other
