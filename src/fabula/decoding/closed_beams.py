"""Beam searches that need nobody but the device for many turns: all their numbers as arrays, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from fabula.decoding.beam_candidates import Candidates
from fabula.decoding.beam_rows import Pool
from fabula.decoding.beam_search import BeamSearch, Carry
from fabula.decoding.closed import ClosedRow, ClosedRows, Form, close, leaves_of, padded

__all__ = [
    "BeamForm",
    "ClosedBeams",
    "ClosedGroup",
    "Found",
    "beam_leaves_of",
    "close_beams",
    "padded_beams",
    "turns_of",
]


@dataclass(frozen=True, slots=True)
class BeamForm:
    """What a loop is compiled for, beside the shapes of its arrays; equal forms are one loop."""

    chain: Form  # the rows' processors, and whether the groups draw
    beams: int  # W, of each group
    kept: int  # K, candidates of a turn


@dataclass(frozen=True, slots=True)
class ClosedBeams:
    """G groups of W beams, and all numbers that decide how they go on for up to T turns."""

    rows: ClosedRows  # R = G * W: the groups' beams, one group's behind the other's; all have their group's stream
    scores: Any  # Float32["G W"]: of the beams
    pool: Any  # Float32["G W"]: of the best sequences that have ended, falling; -inf where there are fewer
    divisors: Any  # Float32["G T"]: what a sum of log-probabilities is divided by at each turn, if the sequence ends
    bounds: Any  # Float32["G T"]: what it is divided by to be the best that a running sequence may reach
    hasty: Any  # Bool["G"]: whether so many results as beams are enough


@dataclass(frozen=True, slots=True)
class ClosedGroup:
    """One group on the host; its room is that of its rows."""

    rows: Sequence[ClosedRow]
    carry: Carry

    @property
    def search(self) -> BeamSearch | None:
        """How it searches, if that can be closed."""
        search = self.rows[0].recipe.search
        return search if type(search) is BeamSearch else None


class Found(NamedTuple):
    """What each turn chose from: candidates k of turn t are at t * K + k."""

    values: Any  # Float32["G T*K"]; -inf where a turn had fewer candidates
    beams: Any  # Int["G T*K"]
    tokens: Any  # Int["G T*K"]
    turns: Any  # Int["G"]: how many moves were made


def close_beams(
    groups: Sequence[ClosedGroup], turns: int, hurried: bool = False
) -> tuple[BeamForm, ClosedBeams] | None:
    """The groups as arrays, for up to so many turns; None where they are not beam searches that can go on together."""
    searches = [group.search for group in groups if group.search is not None]
    shapes = {(one.num_beams, one.kept) for one in searches}
    if len(searches) < len(groups) or len(shapes) > 1 or len({group.rows[0].recipe.sampled for group in groups}) > 1:
        return None
    closed = close([row for group in groups for row in group.rows], hurried)
    if closed is None:
        return None
    (form, rows), (width, kept) = closed, shapes.pop()
    beams, rankings = [group.carry.beams for group in groups], [one.ranking for one in searches]
    lengths = [range(one.length + 1, one.length + 1 + turns) for one in beams]
    return BeamForm(form, width, kept), ClosedBeams(
        rows=rows,
        scores=np.stack([one.scores for one in beams]),
        pool=np.stack([_scores(one.pool) for one in beams]),
        divisors=np.array([list(map(one.divisor, own)) for one, own in zip(rankings, lengths, strict=True)]),
        bounds=np.array([list(map(one.best_divisor, own)) for one, own in zip(rankings, lengths, strict=True)]),
        hasty=np.array([one.early_stopping is True for one in rankings]),
    )


def turns_of(form: BeamForm, found: Found, groups: int) -> list[list[Candidates]]:
    """What each of the first groups chose from, at each of its turns; found is on the host."""
    parts = [part[:groups].reshape(groups, -1, form.kept) for part in found[:3]]
    counts = found.turns.tolist()
    return [
        [Candidates(*(part[group, turn] for part in parts)).possible() for turn in range(counts[group])]
        for group in range(groups)
    ]


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
