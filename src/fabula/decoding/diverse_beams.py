"""Diverse beam search: groups of beams that avoid each other's tokens (Vijayakumar et al. 2016, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fabula import arrays
from fabula.decoding.beam_candidates import Candidates, candidates_to_keep, found, log_scores, shares
from fabula.decoding.beam_rows import BY_MEAN, Beams, Pool, Ranking, settled_tokens
from fabula.decoding.beam_turns import Told, judge, reasons_of
from fabula.decoding.strategy import Ends, Move, Turn, Underway
from fabula.errors import ArgumentError
from fabula.processors.diversity import count_tokens
from fabula.taps import NO_TAPS, Taps

__all__ = ["DiverseBeamSearch", "DiverseCarry"]


@dataclass(frozen=True, slots=True)
class Group:
    """One group between two turns, and what it chose in the last."""

    beams: Beams
    parents: np.ndarray  # Int["W"]: each beam's row of the turn
    chosen: np.ndarray  # Int["W"]
    scores: Any = None  # Float["W V"]
    over: bool = False


@dataclass(frozen=True, slots=True)
class _Member:
    """A sequence's group when its turn comes."""

    group: Group
    before: list[Group]  # those of the sequence that have chosen
    first: int  # the sequence's first row of the turn
    ends: Ends

    @property
    def rows(self) -> np.ndarray:
        """Int["W"]: the group's rows of the turn; one while its beams are one text."""
        parents = self.group.parents
        return self.first + (parents[:1] if parents[0] == parents[-1] else parents)


@dataclass(frozen=True, slots=True)
class DiverseCarry:
    """What the search keeps between turns."""

    groups: tuple[Group, ...]
    shown: int = 0


@dataclass(frozen=True, slots=True)
class DiverseBeamSearch:
    """`num_beam_groups` beam searches of num_beams / num_beam_groups beams each, one after the other at every turn.

    A group's scores fall by `diversity_penalty` for each earlier group's beam that went on with the same token now
    (Hamming diversity), before the processors. Each group has results of its own; the best of all are given. The
    result is that of transformers 4.49 to 4.56, in which the beams of a group that is over go on with `padding`.
    Raises ArgumentError.
    """

    num_beams: int
    num_beam_groups: int
    diversity_penalty: float = 0.0
    results: int = 1  # at most num_beams
    ranking: Ranking = BY_MEAN
    end_tokens: int = 0  # how many tokens end a text
    padding: int = 0
    taps: Taps = NO_TAPS
    whole_prompt: bool = False

    def __post_init__(self) -> None:
        if self.num_beam_groups < 1 or self.num_beams % self.num_beam_groups:
            raise ArgumentError(
                f"`num_beams` must be a multiple of `num_beam_groups`, got {self.num_beams} and "
                f"{self.num_beam_groups}. Set num_beams={self.num_beam_groups} or a multiple of it."
            )

    @property
    def width(self) -> int:
        return self.num_beams

    @property
    def size(self) -> int:
        """Beams of a group."""
        return self.num_beams // self.num_beam_groups

    @property
    def kept(self) -> int:
        """How many candidates of a group are looked at."""
        return candidates_to_keep(self.size, self.end_tokens)

    def advance(self, turn: Turn, underway: Sequence[Underway]) -> list[Move]:
        """The next beams of every group. Raises NumericalError where a group has no finite score, or NaN."""
        carries = [one.carry or self._start() for one in underway]
        each = len(turn.draw.position) // len(underway)
        chosen: list[list[Group]] = [[] for _ in underway]
        for index in range(self.num_beam_groups):
            members = [
                _Member(carry.groups[index], before, place * each, one.ends)
                for place, (carry, before, one) in enumerate(zip(carries, chosen, underway, strict=True))
            ]
            stepped = iter(self._step(turn, [member for member in members if not member.group.over]))
            for member in members:
                member.before.append(self._over(member.group) if member.group.over else next(stepped))
        return [self._move(*each) for each in zip(chosen, carries, strict=True)]

    def replay(self, carry: DiverseCarry, ends: Ends, turns: Sequence[Told]) -> Move | None:
        """What N turns, one or more, make of one sequence, of each of which every group's candidates are known.

        The move's tokens are Int["W N"], its parents the rows before the first turn, and its scores those of each turn;
        or it has finished. None where the groups that are over are not those without candidates.
        """
        settled: tuple[int, ...] = ()
        scores = list[Any]()
        rows, tokens = np.arange(self.num_beams, dtype=np.int32), np.zeros((self.num_beams, 0), np.int32)
        for told in turns:
            groups: list[Group] = []
            if [group.over for group in carry.groups] != [not len(own) for own in told.candidates]:
                return None
            for group, own, chosen_from in zip(carry.groups, told.candidates, self._shares(told), strict=True):
                member = _Member(group, groups, 0, ends)
                groups.append(self._over(group) if group.over else self._next(member, own, chosen_from))
            move = self._move(groups, carry)
            settled += move.settled
            scores.append(move.scores)
            if move.finished is not None:
                return replace(move, settled=settled, scores=scores)
            carry = move.carry
            rows, tokens = rows[move.parents], np.column_stack([tokens[move.parents], move.tokens])
        return Move(carry, parents=rows, tokens=tokens, settled=settled, scores=scores)

    def _shares(self, told: Told) -> list[Any]:
        """Float32["W V"] of each group, or None."""
        each = range(self.num_beam_groups)
        return [None if told.scores is None else told.scores[own * self.size :][: self.size].copy() for own in each]

    def _move(self, groups: list[Group], carry: DiverseCarry) -> Move:
        """What the groups of a sequence become, or its results."""
        scores = _joined([group.scores for group in groups])
        if all(group.over for group in groups):
            nothing = np.zeros(0, np.int32)
            return Move(None, nothing, nothing, finished=self._results(groups), scores=scores)
        running = [group.beams for group in groups if not group.over]
        settled = settled_tokens(running, [group.beams.pool for group in groups], carry.shown)
        return Move(
            carry=DiverseCarry(tuple(self._placed(groups)), carry.shown + len(settled)),
            parents=np.concatenate([group.parents for group in groups]),
            tokens=np.concatenate([group.chosen for group in groups]),
            settled=settled,
            scores=scores,
        )

    def _start(self) -> DiverseCarry:
        first = Group(Beams.start(self.size), np.zeros(self.size, np.int32), np.zeros(0, np.int32))
        return DiverseCarry((first,) * self.num_beam_groups)

    def _placed(self, groups: list[Group]) -> list[Group]:
        """The groups at their rows of the next turn."""
        return [
            replace(group, parents=np.arange(self.size, dtype=np.int32) + index * self.size)
            for index, group in enumerate(groups)
        ]

    def _over(self, group: Group) -> Group:
        """A group that is over: its beams stay, so that there are as many rows at every turn."""
        return replace(group, chosen=self._padded())

    def _step(self, turn: Turn, members: list[_Member]) -> list[Group]:
        """What the group of one number becomes of some sequences."""
        if not members:
            return []
        here = turn.of(np.concatenate([member.rows for member in members]))
        scores = log_scores(here, self._diverse(here.logits, members))
        running = [member.group.beams.scores for member in members]
        every = found(scores, running, self.kept, here.draw)
        shared = shares(scores, len(members), self.size)
        return [self._next(*one) for one in zip(members, every, shared, strict=True)]

    def _next(self, member: _Member, candidates: Candidates, scores: Any) -> Group:
        """A sequence's group with its next beams."""
        group, offset = member.group, len(member.before) * self.size
        beams, reasons = group.beams, reasons_of(candidates, group.parents, member.ends)
        judged = judge(beams, candidates, reasons, self.ranking, offset=offset)
        running = judged.running
        if running is None:
            return Group(replace(beams, pool=judged.pool), group.parents, self._padded(), scores, over=True)
        if judged.over or judged.limit:
            late = [] if judged.over else beams.ended(running, [judged.limit] * self.size, self.ranking, offset)
            ended = replace(beams, pool=judged.pool.add(late))
            return Group(ended, group.parents, running.tokens, scores, over=True)
        return Group(beams.go_on(running, judged.pool, offset), group.parents[running.rows], running.tokens, scores)

    def _padded(self) -> np.ndarray:
        return np.full(self.size, self.padding, np.int32)

    def _diverse(self, logits: Any, members: list[_Member]) -> Any:
        """Float["G V"]: what is taken off the members' scores for what the groups before chose; None: nothing."""
        if not members[0].before or not self.diversity_penalty:
            return None
        tokens = np.stack([np.concatenate([group.chosen for group in member.before]) for member in members])
        return count_tokens(arrays.of(logits), tokens, logits) * self.diversity_penalty

    def _results(self, groups: list[Group]) -> tuple[Any, ...]:
        every = Pool(self.num_beams).add(one for group in groups for one in group.beams.pool.kept)
        return every.results(self.results)


def _joined(scores: list[Any]) -> Any:
    """Float["W V"] of all groups; None where some chose in a loop that kept none."""
    if any(own is None for own in scores):
        return None
    if any(isinstance(own, np.ndarray) for own in scores):  # those of groups that a loop ended came from there
        scores = [arrays.of(own).to_host(own) for own in scores]
    return arrays.of(scores[0]).concat(scores, axis=0)
