"""Beam search and beam sampling: several texts side by side, of which the likeliest as a whole win."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula.decoding.beam_candidates import Candidates, candidates_to_keep, found, log_scores, shares
from fabula.decoding.beam_rows import BY_MEAN, Beams, Ranking, settled_tokens
from fabula.decoding.beam_turns import Told, reasons_of, replay_of_beams
from fabula.decoding.strategy import Ends, FinishReason, Move, Turn, Underway
from fabula.taps import NO_TAPS, Taps

__all__ = ["BeamSearch", "Carry"]


@dataclass(frozen=True, slots=True)
class Carry:
    """What the search keeps between turns."""

    beams: Beams
    shown: int = 0  # tokens that were said to be settled


@dataclass(frozen=True, slots=True)
class BeamSearch:
    """Keeps the `num_beams` likeliest texts, and gives the best of those that end.

    At each turn the best continuations of all beams are candidates, twice as many as beams or more (in rows that are
    sampled: draws without replacement). One that ends, by whatever limit, is a result if it is among the first
    `num_beams`; the best of the others are the next beams. The search is over when no beam can better the worst of
    `num_beams` results (`ranking`), when there are so many and early_stopping is True, or when every candidate ends.
    The result is that of transformers 5, at any batch size that of the prompt alone.
    """

    num_beams: int
    results: int = 1  # at most num_beams
    ranking: Ranking = BY_MEAN
    end_tokens: int = 0  # how many tokens end a text: so many more candidates are looked at
    taps: Taps = NO_TAPS
    whole_prompt: bool = False

    @property
    def width(self) -> int:
        return self.num_beams

    @property
    def kept(self) -> int:
        """How many candidates are looked at."""
        return candidates_to_keep(self.num_beams, self.end_tokens)

    def advance(self, turn: Turn, underway: Sequence[Underway]) -> list[Move]:
        """The next beams of each. Raises NumericalError where all beams of one have no finite score, or one has NaN."""
        scores = log_scores(turn)
        carries = [one.carry or Carry(Beams.start(self.num_beams)) for one in underway]
        running = [carry.beams.scores for carry in carries]
        every = found(scores, running, self.kept, turn.draw)
        shared = shares(scores, len(underway), self.num_beams)
        return [self._move(*each) for each in zip(underway, carries, every, shared, strict=True)]

    def replay(self, carry: Carry, ends: Ends, turns: Sequence[Told]) -> Move:
        """What turns that a loop made make of one sequence, as `replay_of_beams` has it."""

        def move_of(carry: Carry, told: Told) -> Move:
            return self._move(Underway(carry, ends), carry, told.candidates[0], told.scores)

        return replay_of_beams(carry, turns, move_of)

    def _move(self, one: Underway, carry: Carry, candidates: Candidates, scores: Any) -> Move:
        """The next beams of one sequence, or its results."""
        beams = carry.beams
        parents = np.zeros(self.num_beams, np.int32) if one.carry is None else np.arange(self.num_beams, dtype=np.int32)
        reasons = reasons_of(candidates, parents, one.ends)
        best = slice(self.num_beams)  # the rest are there so that enough go on
        ended = beams.ended(candidates.at(best), reasons[best], self.ranking) if any(reasons[best]) else ()
        pool = beams.pool.add(ended)
        running = _running(candidates, reasons, self.num_beams)
        if running is None or pool.closed_to(running.values[0], beams.length + 1, self.ranking):
            nothing = np.zeros(0, np.int32)
            return Move(None, nothing, nothing, finished=pool.results(self.results), scores=scores)
        beams = beams.go_on(running, pool)
        settled = settled_tokens([beams], [pool], carry.shown)
        return Move(
            carry=Carry(beams, carry.shown + len(settled)),
            parents=parents[running.rows],
            tokens=running.tokens,
            settled=settled,
            scores=scores,
        )


def _running(candidates: Candidates, reasons: list[FinishReason | None], count: int) -> Candidates | None:
    """The best of those that do not end, falling. None: all end."""
    living = [place for place, reason in enumerate(reasons) if reason is None]
    if not living:
        return None
    running = candidates if len(living) == len(reasons) else candidates.at(living)
    return running.at(np.argsort(-running.values, kind="stable")).fill(count)
