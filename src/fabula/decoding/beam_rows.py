"""What a group of beams is between two turns: the beams' texts and scores, and the best that have ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from fabula.decoding.beam_candidates import SPARE, Candidates
from fabula.decoding.strategy import FinishReason, Hypothesis

__all__ = ["BY_MEAN", "Beams", "Pool", "Ranking", "settled_tokens"]

EarlyStopping = bool | Literal["never"]


@dataclass(frozen=True, slots=True)
class Ranking:
    """How sequences of different lengths compare, and when no running one can come in any more."""

    length_penalty: float = 1.0  # exponent of the number of new tokens that a sum of log-probabilities is divided by
    early_stopping: EarlyStopping = False
    most_new: int | None = None  # the most new tokens of a sequence, that "never" reckons with

    def divisor(self, length: int) -> np.float32:
        """What the sum of log-probabilities of so many tokens is divided by: the length, with its exponent."""
        with np.errstate(over="ignore"):
            return np.float32(np.float64(length) ** self.length_penalty)

    def best_divisor(self, length: int) -> np.float32:
        """The divisor of what a running sequence, as long as this now, is taken to become at best.

        With "never", where a positive penalty lets it grow, it becomes as long as the limit; otherwise it stays.
        """
        grows = self.early_stopping == "never" and self.length_penalty > 0
        return self.divisor(self.most_new if grows and self.most_new is not None else length)

    def score(self, total: Any, length: int) -> Any:
        """What a sequence of this length and sum of log-probabilities is ranked by."""
        return np.float32(total) / self.divisor(length)

    def bound(self, total: Any, length: int) -> Any:
        """What a running sequence, as long as this now, is taken to reach at best."""
        return np.float32(total) / self.best_divisor(length)


BY_MEAN = Ranking()


@dataclass(frozen=True, slots=True)
class Pool:
    """The best sequences that have ended, best first."""

    size: int
    kept: tuple[Hypothesis, ...] = ()

    def add(self, ended: Iterable[Hypothesis]) -> Pool:
        """With those of the ended that are good enough; of equal ones the older stay."""
        ended = tuple(ended)
        if not ended:
            return self
        ranked = sorted((*self.kept, *ended), key=lambda one: -float(one.score))  # type: ignore[arg-type]
        return replace(self, kept=tuple(ranked[: self.size]))

    @property
    def full(self) -> bool:
        return len(self.kept) == self.size

    def closed_to(self, total: Any, length: int, ranking: Ranking) -> bool:
        """Whether nothing more is to come in from sequences whose best has this sum of log-probabilities."""
        if not self.full or ranking.early_stopping is True:
            return self.full
        return not ranking.bound(total, length) > self.kept[-1].score

    def results(self, count: int) -> tuple[Hypothesis, ...]:
        """The best `count`: where there are fewer, the last is given again."""
        return (self.kept + self.kept[-1:] * count)[:count]


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

    def ended(
        self,
        chosen: Candidates,
        reasons: Sequence[FinishReason | None],
        ranking: Ranking,
        offset: int = 0,
    ) -> list[Hypothesis]:
        """Those candidates that end, for the reason that stands at their place; `offset` as in `go_on`."""
        places = [place for place, reason in enumerate(reasons) if reason is not None]
        return [
            Hypothesis(
                tokens=np.append(self.tokens[chosen.rows[place]], chosen.tokens[place]).astype(np.int32),
                reason=reasons[place],  # type: ignore[arg-type]
                score=float(ranking.score(chosen.values[place], self.length + 1)),
                rows=np.append(self.rows[chosen.rows[place]], chosen.rows[place] + offset).astype(np.int32),
            )
            for place in places
        ]

    def go_on(self, chosen: Candidates, pool: Pool, offset: int = 0) -> Beams:
        """The beams that the chosen candidates make; `offset` is the number of the group's first beam."""
        tokens = np.concatenate([self.tokens[chosen.rows], chosen.tokens[:, None]], axis=1, dtype=np.int32)
        rows = np.concatenate([self.rows[chosen.rows], chosen.rows[:, None] + offset], axis=1, dtype=np.int32)
        return Beams(chosen.values, tokens, rows, pool)


def settled_tokens(running: Sequence[Beams], pools: Sequence[Pool], shown: int) -> tuple[int, ...]:
    """What all running beams and all ended sequences share, beyond the `shown` tokens: no result can differ in it."""
    ended = [one.tokens for pool in pools for one in pool.kept]
    shortest = min([beams.length for beams in running] + [len(tokens) for tokens in ended])
    settled: list[int] = []
    for place in range(shown, shortest):
        choices = {int(tokens[place]) for tokens in ended}
        choices.update(*(beams.tokens[:, place].tolist() for beams in running))
        if len(choices) > 1:
            break
        settled += choices
    return tuple(settled)
