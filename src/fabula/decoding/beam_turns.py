"""One group's turn in the searches of transformers 4: an end token ends a beam, a limit ends the search.

They differ from beam search of transformers 5 in what counts as a result at the limit (every running beam, wherever it
ranked), and in what the results are compared with to stop: the best candidate, though it may just have ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fabula.decoding.beam_candidates import Candidates
from fabula.decoding.beam_rows import Beams, Pool, Ranking
from fabula.decoding.strategy import Ends, FinishReason

__all__ = ["Judged", "judge"]


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
