"""Diverse beam search: groups of beams that avoid each other's tokens (Vijayakumar et al. 2016, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.decoding.beam_candidates import candidates_to_keep, found, log_scores
from fabula.decoding.beam_rows import BY_MEAN, Beams, Pool, Ranking, settled_tokens
from fabula.decoding.beam_turns import judge, reasons_of
from fabula.decoding.strategy import Ends, Move, Turn
from fabula.errors import ArgumentError
from fabula.processors.diversity import count_tokens
from fabula.taps import NO_TAPS, Taps

__all__ = ["DiverseBeamSearch"]


@dataclass(frozen=True, slots=True)
class Group:
    """One group between two turns, and what it chose in the last."""

    beams: Beams
    parents: np.ndarray  # Int["W"]: each beam's row of the turn
    chosen: np.ndarray  # Int["W"]
    scores: Any = None  # Float["W V"]
    over: bool = False


@dataclass(frozen=True, slots=True)
class Carry:
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

    def advance(self, turn: Turn, ends: Ends, carry: Carry | None) -> Move:
        """The next beams of every group. Raises NumericalError where a group has no finite score, or NaN."""
        carry = carry or self._start()
        groups: list[Group] = []
        for group in carry.groups:
            groups.append(self._over(group) if group.over else self._step(group, groups, turn, ends))
        scores = arrays.of(turn.logits).concat([group.scores for group in groups], axis=0)
        if all(group.over for group in groups):
            nothing = np.zeros(0, np.int32)
            return Move(None, nothing, nothing, finished=self._results(groups), scores=scores)
        running = [group.beams for group in groups if not group.over]
        settled = settled_tokens(running, [group.beams.pool for group in groups], carry.shown)
        return Move(
            carry=Carry(tuple(self._placed(groups)), carry.shown + len(settled)),
            parents=np.concatenate([group.parents for group in groups]),
            tokens=np.concatenate([group.chosen for group in groups]),
            settled=settled,
            scores=scores,
        )

    def _start(self) -> Carry:
        first = Group(Beams.start(self.size), np.zeros(self.size, np.int32), np.zeros(0, np.int32))
        return Carry((first,) * self.num_beam_groups)

    def _placed(self, groups: list[Group]) -> list[Group]:
        """The groups at their rows of the next turn."""
        return [
            replace(group, parents=np.arange(self.size, dtype=np.int32) + index * self.size)
            for index, group in enumerate(groups)
        ]

    def _over(self, group: Group) -> Group:
        """A group that is over: its beams stay, so that there are as many rows at every turn."""
        return replace(group, chosen=self._padded())

    def _step(self, group: Group, before: list[Group], turn: Turn, ends: Ends) -> Group:
        """A group's next beams, after those before it chose."""
        beams, offset = group.beams, len(before) * self.size
        scores = self._scores(group, before, turn)
        kept = candidates_to_keep(self.size, self.end_tokens)
        candidates = found(scores, beams.scores, kept, turn.draw)
        judged = judge(beams, candidates, reasons_of(candidates, group.parents, ends), self.ranking, offset=offset)
        recorded = arrays.of(scores).broadcast_to(scores, (self.size, scores.shape[-1]))
        running = judged.running
        if running is None:
            return Group(replace(beams, pool=judged.pool), group.parents, self._padded(), recorded, over=True)
        if judged.over or judged.limit:
            late = [] if judged.over else beams.ended(running, [judged.limit] * self.size, self.ranking, offset)
            ended = replace(beams, pool=judged.pool.add(late))
            return Group(ended, group.parents, running.tokens, recorded, over=True)
        return Group(beams.go_on(running, judged.pool, offset), group.parents[running.rows], running.tokens, recorded)

    def _padded(self) -> np.ndarray:
        return np.full(self.size, self.padding, np.int32)

    def _scores(self, group: Group, before: list[Group], turn: Turn) -> Any:
        """Float["W V"], or Float["1 V"] while the group's beams are one row: what it chooses from."""
        xp = arrays.of(turn.logits)
        rows = xp.asarray(np.unique(group.parents), "int32", like=turn.logits)
        diverse = None
        if before and self.diversity_penalty:
            tokens = np.concatenate([one.chosen for one in before])
            diverse = count_tokens(xp, tokens, turn.logits) * self.diversity_penalty
        return log_scores(turn, _rows_of(turn.context, rows), rows, diverse)

    def _results(self, groups: list[Group]) -> tuple[Any, ...]:
        every = Pool(self.num_beams).add(one for group in groups for one in group.beams.pool.kept)
        return every.results(self.results)


def _rows_of(context: Context, rows: Any) -> Context:
    """The context of some rows."""
    xp = arrays.of(context.tokens)

    def some(part: Any) -> Any:
        return None if part is None else xp.take(part, rows)

    return replace(
        context,
        tokens=some(context.tokens),
        lengths=some(context.lengths),
        prompt_lengths=some(context.prompt_lengths),
        seen=some(context.seen),
        unconditional=some(context.unconditional),
    )
