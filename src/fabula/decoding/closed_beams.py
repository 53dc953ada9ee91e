"""Beam searches that need nobody but the device for many turns: all their numbers as arrays, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from fabula.decoding.beam_candidates import Candidates
from fabula.decoding.beam_rows import Beams, Pool
from fabula.decoding.beam_search import BeamSearch, Carry
from fabula.decoding.closed import ClosedRow, ClosedRows, Form, close, leaves_of, padded
from fabula.decoding.diverse_beams import DiverseBeamSearch, DiverseCarry
from fabula.decoding.strategy import Ends, Move

__all__ = [
    "BeamForm",
    "ClosedBeams",
    "ClosedGroup",
    "Found",
    "Made",
    "beam_leaves_of",
    "close_beams",
    "made_by",
    "over_of",
    "padded_beams",
    "replayed",
]


@dataclass(frozen=True, slots=True)
class BeamForm:
    """What a loop is compiled for, beside the shapes of its arrays; equal forms are one loop."""

    chain: Form  # the rows' processors, and whether the groups draw
    beams: int  # W, of each group
    kept: int  # K, candidates of a subgroup in a turn
    subgroups: int = 1  # N: parts of a group's beams that choose one after the other, as diverse beam search has them

    @property
    def size(self) -> int:
        """S: beams of a subgroup."""
        return self.beams // self.subgroups


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


@dataclass(frozen=True, slots=True)
class ClosedGroup:
    """One group on the host; its room is that of its rows."""

    rows: Sequence[ClosedRow]
    carry: Carry | DiverseCarry

    @property
    def search(self) -> BeamSearch | DiverseBeamSearch | None:
        """How it searches, if that can be closed."""
        search = self.rows[0].recipe.search
        if type(search) is DiverseBeamSearch and search.num_beam_groups > 1 and not self.rows[0].recipe.sampled:
            return search
        return search if type(search) is BeamSearch else None

    @property
    def subgroups(self) -> list[Beams]:
        """The beams of each subgroup."""
        carry = self.carry
        return [carry.beams] if isinstance(carry, Carry) else [group.beams for group in carry.groups]


class Found(NamedTuple):
    """What each turn chose from: candidate k of subgroup n in turn t is at (t * N + n) * K + k."""

    values: Any  # Float32["G T*N*K"]; -inf where there were fewer candidates
    beams: Any  # Int["G T*N*K"]: of the subgroup's
    tokens: Any  # Int["G T*N*K"]
    turns: Any  # Int["G"]: how many there were
    over: Any  # Bool["G N"]: which subgroups are over then; where all are, nothing moved in the last turn


@dataclass(frozen=True, slots=True)
class Made:
    """What one group chose from in a loop, on the host."""

    turns: Sequence[Sequence[Candidates]]  # of each turn, of each subgroup
    over: list[bool]  # which subgroups are over then, as the loop judged

    def __len__(self) -> int:
        return len(self.turns)


def close_beams(
    groups: Sequence[ClosedGroup], turns: int, hurried: bool = False
) -> tuple[BeamForm, ClosedBeams] | None:
    """The groups as arrays, for up to so many turns; None where they are not beam searches that can go on together."""
    searches = [group.search for group in groups if group.search is not None]
    if len(searches) < len(groups) or len({group.rows[0].recipe.sampled for group in groups}) > 1:
        return None
    shapes = {(one.num_beams, one.kept, len(group.subgroups)) for one, group in zip(searches, groups, strict=True)}
    if len(shapes) > 1:
        return None
    closed = close([row for group in groups for row in group.rows], hurried)
    if closed is None:
        return None
    (form, rows), rankings = closed, [one.ranking for one in searches]
    first = [max(one.length for one in group.subgroups) + 1 for group in groups]
    lengths = [range(length, length + turns) for length in first]
    return BeamForm(form, *shapes.pop()), ClosedBeams(
        rows=rows,
        scores=np.stack([np.concatenate([one.scores for one in group.subgroups]) for group in groups]),
        pool=np.stack([np.concatenate([_scores(one.pool) for one in group.subgroups]) for group in groups]),
        over=np.array([over_of(group.carry) for group in groups]),
        divisors=np.array([list(map(one.divisor, own)) for one, own in zip(rankings, lengths, strict=True)]),
        bounds=np.array([list(map(one.best_divisor, own)) for one, own in zip(rankings, lengths, strict=True)]),
        hasty=np.array([one.early_stopping is True for one in rankings]),
        diversity=np.array([getattr(one, "diversity_penalty", 0.0) for one in searches], np.float32),
        padding=np.array([getattr(one, "padding", 0) for one in searches], np.int32),
    )


def made_by(form: BeamForm, found: Found, groups: int) -> list[Made]:
    """What each of the first groups chose from; found is on the host."""
    parts = [part[:groups].reshape(groups, -1, form.subgroups, form.kept) for part in found[:3]]

    def candidates(group: int, turn: int) -> list[Candidates]:
        return [Candidates(*(part[group, turn, own] for part in parts)).possible() for own in range(form.subgroups)]

    return [
        Made([candidates(group, turn) for turn in range(count)], over)
        for group, count, over in zip(range(groups), found.turns.tolist(), found.over.tolist(), strict=False)
    ]


def replayed(search: Any, carry: Carry | DiverseCarry, ends: Ends, made: Made) -> Move | None:
    """The host's move through turns, one or more; None where it judges otherwise than the loop did, which moved so."""
    move: Move | None = search.replay(carry, ends, made.turns)
    agrees = move is not None and (move.finished is not None or over_of(move.carry) == made.over)
    return move if agrees else None


def over_of(carry: Carry | DiverseCarry) -> list[bool]:
    """Which subgroups of a search that goes on are over."""
    return [False] if isinstance(carry, Carry) else [group.over for group in carry.groups]


def padded_beams(beams: ClosedBeams, groups: int, width: int) -> ClosedBeams:
    """The same with so many groups, of which the new ones have ended, over `width` columns."""
    more, each = groups - len(beams.hasty), beams.scores.shape[1]
    own = {each.name: getattr(beams, each.name) for each in fields(beams) if each.name != "rows"}
    wider = {name: np.concatenate([value, np.repeat(value[:1], more, axis=0)]) for name, value in own.items()}
    return ClosedBeams(rows=padded(beams.rows, groups * each, width), **wider)


def beam_leaves_of(beams: ClosedBeams) -> tuple[list[np.ndarray], Callable[[Sequence[Any]], ClosedBeams]]:
    """All arrays of the beams, and what makes beams of others in their places: what a compiled function takes."""
    names = [each.name for each in fields(beams) if each.name != "rows"]
    leaves, rows_of = leaves_of(beams.rows)

    def rebuild(others: Sequence[Any]) -> ClosedBeams:
        return ClosedBeams(rows_of(others[len(names) :]), **dict(zip(names, others, strict=False)))

    return [*(getattr(beams, name) for name in names), *leaves], rebuild


def _scores(pool: Pool) -> np.ndarray:
    """Float32["W"]: those of the pool's sequences, -inf where there are fewer."""
    scores = np.full(pool.size, -np.inf, np.float32)
    scores[: len(pool.kept)] = [one.score for one in pool.kept]
    return scores
