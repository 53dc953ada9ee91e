"""What the turns of beam searches have in common, and one group's turn in the searches of transformers 4.

There an end token ends a beam, and a limit ends the search. They differ from beam search of transformers 5 in what
counts as a result at the limit (every running beam, wherever it ranked), and in what the results are compared with to
stop: the best candidate, though it may just have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fabula.decoding.beam_candidates import Candidates
from fabula.decoding.beam_rows import Beams, Pool, Ranking
from fabula.decoding.strategy import Ends, FinishReason, Move

__all__ = ["Judged", "Told", "judge", "reasons_of", "replay_of_beams"]


@dataclass(frozen=True, slots=True)
class Told:
    """What one group chose from in one turn of a loop, on the host."""

    candidates: Sequence[Candidates]  # of each subgroup
    forced: np.ndarray | None = None  # Float32["W E"]: the scores of its beams with each token of its constraints
    scores: np.ndarray | None = None  # Float32["W V"]: what the processors made of its rows, where that is recorded
    logits: np.ndarray | None = None  # Float32["W V"]


@dataclass(frozen=True, slots=True)
class Judged:
    """A group's candidates after all that may end them was asked."""

    pool: Pool  # with those that ended
    running: Candidates | None  # the group's next beams, best first; None: every candidate ended
    over: bool  # whether nothing better is to come
    limit: FinishReason | None  # why the running ones end now, too; None: they do not


def judge(
    beams: Beams,
    candidates: Candidates,
    reasons: Sequence[FinishReason | None],
    ranking: Ranking,
    complete: Sequence[bool] | None = None,
    offset: int = 0,
) -> Judged:
    """What becomes of a group's candidates, best first, of which each may end for the reason at its place.

    `complete`: which of them may be results, where not all may; `offset` is the number of the group's first beam.
    """
    count = beams.pool.size
    stopped = [place for place, reason in enumerate(reasons) if reason == "stop"]
    good = [place for place in stopped if place < count and (complete is None or complete[place])]
    ended = beams.ended(candidates.at(good), ["stop"] * len(good), ranking, offset) if good else ()
    pool = beams.pool.add(ended)
    living = [place for place in range(len(reasons)) if reasons[place] != "stop"]
    limits = [reasons[place] for place in living if reasons[place] is not None]
    running = candidates.at(living) if stopped else candidates
    return Judged(
        pool=pool,
        running=running.fill(count) if living else None,
        over=not living or pool.closed_to(candidates.values[0], beams.length + 1, ranking),
        limit=limits[0] if limits else None,
    )


def reasons_of(candidates: Candidates, parents: np.ndarray, ends: Ends) -> list[FinishReason | None]:
    """Why each candidate would end; parents Int["W"] is each beam's row in the turn."""
    rows = parents[candidates.rows].tolist()
    return [ends(row, token) for row, token in zip(rows, candidates.tokens.tolist(), strict=True)]


def replay_of_beams(carry: Any, turns: Sequence[Told], move_of: Callable[[Any, Told], Move]) -> Move:
    """What N turns, one or more, make of one sequence whose beams are one subgroup; `move_of` makes one of them.

    The move's tokens are Int["W N"], its parents the rows before the first turn, and its scores those of each turn; or
    it has finished.
    """
    settled: tuple[int, ...] = ()
    scores, first = list[Any](), carry.beams.length
    for told in turns:
        move = move_of(carry, told)
        settled += move.settled
        scores.append(move.scores)
        if move.finished is not None:
            return replace(move, settled=settled, scores=scores)
        carry = move.carry
    beams = carry.beams
    return Move(carry, beams.rows[:, first], beams.tokens[:, first:], settled, scores=scores)
