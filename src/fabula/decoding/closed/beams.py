"""Beam searches that need nobody but the device for many turns: all their numbers as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np

from fabula.decoding.beam_rows import Beams, Pool
from fabula.decoding.beam_search import BeamSearch, Carry
from fabula.decoding.closed.rows import ClosedRow, ClosedRows, Form, close, leaves_of, padded
from fabula.decoding.constrained_beams import ConstrainedBeamSearch, ConstrainedCarry
from fabula.decoding.constraint_tries import ClosedConstraints, are_tries, close_constraints
from fabula.decoding.diverse_beams import DiverseBeamSearch, DiverseCarry

__all__ = [
    "AnyCarry",
    "BeamForm",
    "ClosedBeams",
    "ClosedGroup",
    "beam_leaves_of",
    "close_beams",
    "over_of",
    "padded_beams",
    "shortened",
]

AnyCarry: TypeAlias = Carry | DiverseCarry | ConstrainedCarry
AnySearch: TypeAlias = BeamSearch | DiverseBeamSearch | ConstrainedBeamSearch


@dataclass(frozen=True, slots=True)
class BeamForm:
    """What a loop is compiled for, beside the shapes of its arrays; equal forms are one loop."""

    chain: Form  # the rows' processors, and whether the groups draw
    beams: int  # W, of each group
    kept: int  # K, candidates of a subgroup in a turn
    subgroups: int = 1  # N: parts of a group's beams that choose one after the other, as diverse beam search has them
    edges: int = 0  # E: what a group's constraints have room for, each of their phrases' tokens; 0: there are none

    @property
    def each(self) -> int:
        """The model's rows to each group."""
        return self.beams * self.chain.each

    @property
    def size(self) -> int:
        """S: beams of a subgroup."""
        return self.beams // self.subgroups

    @property
    def reckons_with_ended(self) -> bool:
        """Whether a search is over by its best candidate, though it may just have ended: as in transformers 4."""
        return self.subgroups > 1 or self.edges > 0


@dataclass(frozen=True, slots=True)
class ClosedBeams:
    """G groups of W beams, and all numbers that decide how they go on for up to T turns."""

    rows: ClosedRows  # R = G * W: the groups' beams, one group's behind the other's; all have their group's stream
    scores: Any  # Float32["G W"]: of the beams
    pool: Any  # Float32["G W"]: of the best sequences that have ended, falling in each subgroup; else -inf
    over: Any  # Bool["G N"]: subgroups whose search has ended
    divisors: Any  # Float32["G T"]: what a sum of log-probabilities is divided by at each turn, if the sequence ends
    bounds: Any  # Float32["G T"]: what it is divided by to be the best that a running sequence may reach
    hasty: Any  # Bool["G"]: whether so many results as beams are enough
    diversity: Any  # Float32["G"]: what a token's score falls by for each beam of an earlier subgroup that chose it
    padding: Any  # Int["G"]: what the beams of a subgroup go on with that is over
    constraints: ClosedConstraints | tuple[()] = ()  # what texts must contain; () where the form has no edges


@dataclass(frozen=True, slots=True)
class ClosedGroup:
    """One group on the host; its room is that of its rows."""

    rows: Sequence[ClosedRow]
    carry: AnyCarry

    @property
    def search(self) -> AnySearch | None:
        """How it searches, if that can be closed."""
        search, sampled = self.rows[0].recipe.search, self.rows[0].recipe.sampled
        if type(search) is DiverseBeamSearch and search.num_beam_groups > 1 and not sampled:
            return search
        if type(search) is ConstrainedBeamSearch and not sampled and are_tries(search.constraints):
            return search if self._differs() else None
        return search if type(search) is BeamSearch else None

    @property
    def subgroups(self) -> list[Beams]:
        """The beams of each subgroup."""
        carry = self.carry
        return [group.beams for group in carry.groups] if isinstance(carry, DiverseCarry) else [carry.beams]

    def _differs(self) -> bool:
        """Whether no two beams are the same text, as can be where there were too few to choose from."""
        (beams,) = self.subgroups
        return len({tuple(text) for text in beams.tokens.tolist()}) == len(beams.tokens)


def close_beams(
    groups: Sequence[ClosedGroup], turns: int, hurried: bool = False
) -> tuple[BeamForm, ClosedBeams] | None:
    """The groups as arrays, for up to so many turns; None where they are not beam searches that can go on together."""
    searches = [search for group in groups if (search := group.search) is not None]
    if len(searches) < len(groups) or len({group.rows[0].recipe.sampled for group in groups}) > 1:
        return None
    pairs = list(zip(searches, groups, strict=True))
    shapes = {(one.num_beams, one.kept, len(group.subgroups)) for one, group in pairs}
    if len(shapes) > 1 or len({type(one) for one in searches}) > 1:
        return None
    closed = close([row for group in groups for row in group.rows], hurried)
    if closed is None:
        return None
    (form, rows), rankings = closed, [one.ranking for one in searches]
    form = replace(form, record=replace(form.record, log_probabilities=None))  # no turn of a search has any
    constraints = _constraints([group.carry for group in groups], searches)
    edges = constraints.tokens.shape[1] if constraints else 0
    first = [max(one.length for one in group.subgroups) + 1 for group in groups]
    lengths = [range(length, length + turns) for length in first]
    return BeamForm(form, *shapes.pop(), edges), ClosedBeams(
        rows=rows,
        scores=np.stack([np.concatenate([one.scores for one in group.subgroups]) for group in groups]),
        pool=np.stack([np.concatenate([_scores(one.pool) for one in group.subgroups]) for group in groups]),
        over=np.array([over_of(group.carry) for group in groups]),
        divisors=np.array([list(map(one.divisor, own)) for one, own in zip(rankings, lengths, strict=True)]),
        bounds=np.array([list(map(one.best_divisor, own)) for one, own in zip(rankings, lengths, strict=True)]),
        hasty=np.array([one.early_stopping is True for one in rankings]),
        diversity=np.array([getattr(one, "diversity_penalty", 0.0) for one in searches], np.float32),
        padding=np.array([getattr(one, "padding", 0) for one in searches], np.int32),
        constraints=constraints,
    )


def over_of(carry: AnyCarry) -> list[bool]:
    """Which subgroups of a search that goes on are over."""
    return [group.over for group in carry.groups] if isinstance(carry, DiverseCarry) else [False]


def shortened(beams: ClosedBeams, turns: int) -> ClosedBeams:
    """The same for at most so many turns."""
    rows = replace(beams.rows, room=np.minimum(beams.rows.room, turns))
    return replace(beams, rows=rows, divisors=beams.divisors[:, :turns], bounds=beams.bounds[:, :turns])


def padded_beams(beams: ClosedBeams, groups: int, width: int) -> ClosedBeams:
    """The same with so many groups, of which the new ones have ended, over `width` columns."""
    more, each = groups - len(beams.hasty), beams.scores.shape[1]

    def wider(value: np.ndarray) -> np.ndarray:
        return np.concatenate([value, np.repeat(value[:1], more, axis=0)])

    own = {name: wider(getattr(beams, name)) for name in _names(beams)}
    constraints = ClosedConstraints(*map(wider, beams.constraints)) if beams.constraints else ()
    return ClosedBeams(padded(beams.rows, groups * each, width), **own, constraints=constraints)


def beam_leaves_of(beams: ClosedBeams) -> tuple[list[np.ndarray], Callable[[Sequence[Any]], ClosedBeams]]:
    """All arrays of the beams, and what makes beams of others in their places: what a compiled function takes."""
    names, count = _names(beams), len(beams.constraints)
    leaves, rows_of = leaves_of(beams.rows)

    def rebuild(others: Sequence[Any]) -> ClosedBeams:
        constraints = ClosedConstraints(*others[:count]) if count else ()
        own = dict(zip(names, others[count:], strict=False))
        return ClosedBeams(rows_of(others[count + len(names) :]), **own, constraints=constraints)

    return [*beams.constraints, *(getattr(beams, name) for name in names), *leaves], rebuild


def _names(beams: ClosedBeams) -> list[str]:
    """Of the fields that are arrays."""
    return [each.name for each in fields(beams) if each.name not in ("rows", "constraints")]


def _constraints(carries: Sequence[AnyCarry], searches: Sequence[AnySearch]) -> ClosedConstraints | tuple[()]:
    """What the searches' texts must contain, if they are of that kind."""
    pairs = [
        (search.constraints, carry.states)
        for search, carry in zip(searches, carries, strict=True)
        if isinstance(search, ConstrainedBeamSearch) and isinstance(carry, ConstrainedCarry)
    ]
    return close_constraints(pairs) if pairs else ()


def _scores(pool: Pool) -> np.ndarray:
    """Float32["W"]: those of the pool's sequences, -inf where there are fewer."""
    scores = np.full(pool.size, -np.inf, np.float32)
    scores[: len(pool.kept)] = [one.score for one in pool.kept]
    return scores
