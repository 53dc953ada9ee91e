"""What a group of beams is between two turns: the beams' texts and scores, and the best that have ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from fabula.decoding.beam_candidates import SPARE, Candidates
from fabula.decoding.strategy import FinishReason, Hypothesis

__all__ = ["Beams", "Pool", "Ranking", "settled_tokens"]

EarlyStopping = bool | Literal["never"]


@dataclass(frozen=True, slots=True)
class Ranking:
    """How sequences of different lengths compare, and when no running one can come in any more."""

    length_penalty: float = 1.0  # exponent of the number of new tokens that a sum of log-probabilities is divided by
    early_stopping: EarlyStopping = False
    most_new: int | None = None  # the most new tokens of a sequence, that "never" reckons with

    def score(self, total: Any, length: int) -> Any:
        """A sum of log-probabilities over the length, with its exponent."""
        return np.float32(total) / np.float32(float(length) ** self.length_penalty)

    def bound(self, total: Any, length: int) -> Any:
        """What a running sequence is taken to reach at best, as long as it is now.

        Exact with "never", where a positive penalty lets it grow to the limit; otherwise the score it has now.
        """
        grows = self.early_stopping == "never" and self.length_penalty > 0 and self.most_new is not None
        return self.score(total, self.most_new if grows else length)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Pool:
    """The best sequences that have ended, best first."""

    size: int
    kept: tuple[Hypothesis, ...] = ()

    def add(self, ended: Iterable[Hypothesis]) -> Pool:
        """With those of the ended that are good enough; of equal ones the older stay."""
        ranked = sorted((*self.kept, *ended), key=lambda one: -float(one.score))  # type: ignore[arg-type]
        return replace(self, kept=tuple(ranked[: self.size]))

    @property
    def full(self) -> bool:
        return len(self.kept) == self.size

    def closed_to(self, bound: Any) -> bool:
        """Whether nothing that scores at most `bound` can come in."""
        return self.full and not bound > self.kept[-1].score


@dataclass(frozen=True, slots=True)
class Beams:
    """W running beams and the pool of those that have ended. A beam that only fills a place is far below the others."""

    scores: np.ndarray  # Float32["W"]: sums of the processed log-probabilities, falling
    tokens: np.ndarray  # Int["W N"]: new tokens
    rows: np.ndarray  # Int["W N"]: the beam that each was chosen after
    pool: Pool

    @classmethod
    def start(cls, count: int) -> Beams:
        """The first beam is the prompt, the others fill places: equal texts are not counted twice."""
        scores = np.full(count, SPARE, np.float32)
        scores[0] = 0
        none = np.zeros((count, 0), np.int32)
        return cls(scores, none, none, Pool(count))

    @property
    def length(self) -> int:
        """New tokens of each beam."""
        return self.tokens.shape[1]

    def hypothesis(
        self, row: int, token: int, total: Any, reason: FinishReason, ranking: Ranking, came: int | None = None
    ) -> Hypothesis:
        """A beam that ends with a token; `came` is the number the beam goes by in the result."""
        score = float(ranking.score(total, self.length + 1))
        rows = np.append(self.rows[row], row if came is None else came).astype(np.int32)
        return Hypothesis(np.append(self.tokens[row], token).astype(np.int32), reason, score, rows)

    def go_on(self, chosen: Candidates, pool: Pool, offset: int = 0) -> Beams:
        """The beams that the chosen candidates make; `offset` is the number of the group's first beam."""
        tokens = np.column_stack([self.tokens[chosen.rows], chosen.tokens]).astype(np.int32)
        rows = np.column_stack([self.rows[chosen.rows], chosen.rows + offset]).astype(np.int32)
        return Beams(chosen.values, tokens, rows, pool)


def settled_tokens(groups: Sequence[Beams], shown: int) -> tuple[int, ...]:
    """What all running beams and all ended sequences share, beyond the `shown` tokens: no result can differ in it."""
    texts = [beam for group in groups for beam in group.tokens] + [
        h.tokens for group in groups for h in group.pool.kept
    ]
    shortest = min(len(text) for text in texts)
    tails = np.stack([text[shown:shortest] for text in texts])
    differing = np.flatnonzero((tails != tails[0]).any(axis=0))
    return tuple(tails[0][: differing[0] if len(differing) else None].tolist())
