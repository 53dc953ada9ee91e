"""The step from logits to tokens, for all rows that choose in this step, whatever each of them asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula.decoding.plain_rows import Sampler, plain_numbers
from fabula.decoding.recipe import Recipe
from fabula.decoding.sample import SAMPLE
from fabula.decoding.strategy import Choice, Ends, Move, Process, Tapped, Turn
from fabula.engine.group import Group
from fabula.engine.recording import kept_of, steps_of
from fabula.engine.request import Kept, Request, Step
from fabula.engine.row import Row
from fabula.engine.seats import Board, Seats, seats_of
from fabula.kernels.sampling import RowChoice
from fabula.ops.protocol import Forward
from fabula.processors.rows import stack

Spans = dict[int, tuple[int, int]]  # id(row) -> its outputs are [first, end) of a pass's scored positions
Chosen = tuple[Group, list[Step] | Move, Kept | None]  # a strategy's tokens, or a search's move and what is kept of it


@dataclass(frozen=True, slots=True)
class Party:
    """Groups that take a turn together, and what their places have in common from step to step."""

    groups: list[Group]
    seats: Seats
    requests: list[Request]  # of each place
    recipes: list[Recipe]  # of each place


class Chooser:
    """Chooses tokens; remembers how the rows of the last step were brought together."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        """`sampler`: the backend's own way to choose for rows whose processors are plain numbers."""
        self._sampler = sampler
        self._board = Board()
        self._groups: list[Group] = []
        self._spans: Spans = {}
        self._parties: list[Party] = []
        self._recipes: list[Recipe] = []
        self._process: Process = stack([[]])
        self._numbers: list[dict[str, float]] | None = None

    def choose(
        self, groups: list[Group], forward: Forward, spans: Spans, ends: Callable[[Group], Ends]
    ) -> list[Chosen]:
        """What each group does next. `ends` says of a search's rows when they would end."""
        if groups is self._groups and spans is self._spans:  # the same rows, a token further
            for party in self._parties:
                party.seats.advance()
        else:
            self._groups, self._spans, self._parties = groups, spans, _parties(groups, spans)
        chosen: list[Chosen] = []
        for party in self._parties:
            if party.groups[0].search is None:
                chosen += self._strategy(party, forward, spans)
            else:
                chosen.append(self._search(party, forward, spans, ends(party.groups[0])))
        return chosen

    def _strategy(self, party: Party, forward: Forward, spans: Spans) -> list[Chosen]:
        """The tokens of groups of one strategy, a row each; of a row with drafts, as many as may stand."""
        seats, requests = party.seats, party.requests
        self._meet(party.recipes)
        logits = seats.take(forward.logits)
        strategy = party.recipes[0].strategy
        tokens = self._sampled_by_backend(seats, requests, logits) if strategy is SAMPLE else None
        if tokens is None:
            turn = self._turn(seats, requests, forward, logits, spans)
            choice = strategy.choose(turn)  # type: ignore[union-attr]
        else:
            choice = Choice(tokens)
        steps = steps_of([recipe.record for recipe in party.recipes], logits, choice, forward, seats)
        return [(group, steps[first:end], None) for group, (first, end) in zip(party.groups, seats.spans, strict=True)]

    def _search(self, party: Party, forward: Forward, spans: Spans, ends: Ends) -> Chosen:
        """A search's move."""
        group, seats = party.groups[0], party.seats
        self._meet(party.recipes)
        logits = seats.take(forward.logits)
        turn = self._turn(seats, party.requests, forward, logits, spans)
        assert group.search is not None
        move = group.search.advance(turn, ends, group.carry)
        return group, move, kept_of(group.request.recipe.record, move.scores, logits, forward, seats)

    def _turn(self, seats: Seats, requests: list[Any], forward: Forward, logits: Any, spans: Spans) -> Turn:
        rows = seats.rows
        negative = None
        if rows[0].negative is not None:
            negative = seats_of([row.negative for row in seats.distinct if row.negative is not None], spans)
            negative = negative.take(forward.logits)
        sampled = [request.recipe.sampled for request in requests]
        draw = seats.draw([request.seed for request in requests], sampled)
        layers = forward.layer_logits
        tapped = Tapped(
            () if forward.hidden is None else [forward.hidden[slice(*spans[id(row)])] for row in rows],
            None if layers is None else {layer: seats.take(values) for layer, values in layers.items()},
        )
        return Turn(logits, self._process, self._board.context(seats, logits, negative), draw, tapped)

    def _meet(self, recipes: list[Recipe]) -> None:
        """Brings the processors of these rows together, unless they are those of the last step."""
        if recipes is self._recipes:
            return
        if len(recipes) == len(self._recipes) and all(a is b for a, b in zip(recipes, self._recipes, strict=True)):
            self._recipes = recipes
            return
        numbers = [plain_numbers(recipe) for recipe in recipes] if self._sampler is not None else [None]
        self._numbers = None if None in numbers else [one for one in numbers if one is not None]
        self._process = stack([recipe.processors for recipe in recipes])
        self._recipes = recipes

    def _sampled_by_backend(self, seats: Seats, requests: Sequence[Any], logits: Any) -> np.ndarray | None:
        """The tokens, if the backend's sampler can choose all of them."""
        if self._sampler is None or self._numbers is None or seats.rows[0].negative is not None:
            return None
        places = zip(seats.rows, seats.lengths, requests, self._numbers, strict=True)
        choices = [_row_choice(*place) for place in places]
        tokens = self._sampler(logits, choices)
        return None if (tokens < 0).any() else tokens


def _row_choice(row: Row, length: int, request: Request, numbers: dict[str, Any]) -> RowChoice:
    seen = row.tokens[row.blind : length]
    return RowChoice(**numbers, seed=request.seed, stream=row.stream, position=length, tokens=seen)


def _parties(groups: list[Group], spans: Spans) -> list[Party]:
    """The groups that take a turn together: searches alone, the rest by strategy, and apart where one is guided."""
    parties: dict[Any, list[Group]] = {}
    for group in groups:
        key = id(group) if group.search is not None else (group.request.recipe.strategy, group.request.negative is None)
        parties.setdefault(key, []).append(group)
    return [_party(members, spans) for members in parties.values()]


def _party(groups: list[Group], spans: Spans) -> Party:
    seats = seats_of(groups[0].rows if groups[0].search is not None else [group.rows[0] for group in groups], spans)
    owners = [0] * len(seats.rows) if groups[0].search is not None else seats.owners
    requests = [groups[owner].request for owner in owners]
    return Party(groups, seats, requests, [request.recipe for request in requests])
