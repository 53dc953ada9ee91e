"""Contrastive search: of the k likeliest tokens, the one that says most that the text has not said yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.decoding.sample import best_tokens, check_chosen
from fabula.decoding.strategy import Ends, FinishReason, Hypothesis, Move, Turn
from fabula.errors import ArgumentError
from fabula.processors.rows import select
from fabula.taps import Taps

__all__ = ["ContrastiveSearch"]

FINAL = Taps(final_hidden=True)


@dataclass(frozen=True, slots=True)
class _Candidates:
    """What is known of the rows of the last move, one a candidate, before the model has read the candidates."""

    tokens: np.ndarray  # Int["W"]
    probabilities: np.ndarray  # Float["W"]
    reasons: tuple[FinishReason | None, ...]  # why the sequence would end with the candidate
    read: Any  # Float["L D"]: the final hidden states of the sequence so far, each of length 1


@dataclass(frozen=True, slots=True)
class ContrastiveSearch:
    """Su et al. 2022, "A contrastive framework for neural text generation", section 3.2.

    A candidate v is worth (1 - alpha) * p(v) - alpha * max over the context of cos(h_v, h_j), with the final hidden
    states h after the last norm, the prompt's included, and p after the processors. The best one, the likelier of
    equals, is settled; the others' rows are dropped. A token that the processors removed is never a candidate.
    """

    width: int  # k: how many candidates are read at each position
    alpha: float  # 0: the likeliest token; 1: the least similar one
    results: int = 1
    taps: Taps = FINAL
    whole_prompt: bool = True

    def __post_init__(self) -> None:
        if self.width < 2:
            raise ArgumentError(f"`top_k` must be at least 2 for contrastive search, got {self.width}. Try top_k=4.")
        if not 0 <= self.alpha <= 1:
            raise ArgumentError(f"`penalty_alpha` must be in [0, 1], got {self.alpha}. Try 0.6.")

    def advance(self, turn: Turn, ends: Ends, carry: _Candidates | None) -> Move:
        """Settles the best of the candidates that were read, and has its likeliest successors read."""
        if carry is None:
            return self._propose(turn, ends, 0, _directions(turn.tapped.hidden[0]))
        xp = arrays.of(turn.logits)
        directions = _directions(xp.concat([hidden[-1:] for hidden in turn.tapped.hidden], axis=0))
        winner = self._best(xp, directions, carry)
        token = int(carry.tokens[winner])
        reason = carry.reasons[winner]
        if reason is not None:
            return _finished(xp, turn.context, winner, reason)
        read = xp.concat([carry.read, directions[winner : winner + 1]], axis=0)
        return replace(self._propose(turn, ends, winner, read), settled=(token,))

    def _best(self, xp: Any, directions: Any, carry: _Candidates) -> int:
        """Which candidate is worth most; `directions` Float["W D"]."""
        penalties = xp.to_host(xp.max(directions @ carry.read.T))
        return int(np.argmax((1 - self.alpha) * carry.probabilities - self.alpha * penalties))

    def _propose(self, turn: Turn, ends: Ends, row: int, read: Any) -> Move:
        """The likeliest successors of a row, each to be read in a row of its own."""
        xp = arrays.of(turn.logits)
        chosen = xp.asarray([row], "int32", like=turn.logits)
        logits = xp.astype(xp.take(turn.logits, chosen), "float32")
        scores = turn.process(logits, select(turn.context, chosen))
        ranked = xp.to_host(scores) if arrays.on_host(scores) else scores  # where NumPy takes the fewest steps
        xp = arrays.of(ranked)
        check_chosen(xp, ranked, best_tokens(xp, ranked))
        values, columns = xp.top_k(ranked, min(self.width, scores.shape[-1]))
        possible = xp.to_host(values)[0] > -np.inf
        probabilities = xp.to_host(xp.exp(values - xp.logsumexp(ranked, keepdims=True)))[0][possible]
        tokens = xp.to_host(columns)[0][possible]
        return Move(
            carry=_Candidates(tokens, probabilities, tuple(ends(row, int(token)) for token in tokens), read),
            parents=np.full(len(tokens), row, np.int32),
            tokens=tokens.astype(np.int32),
            scores=scores,
            recorded=np.array([row]),
        )


def _directions(hidden: Any) -> Any:
    """Float32["N D"]: each vector over its length."""
    xp = arrays.of(hidden)
    wide = xp.astype(hidden, "float32")
    return wide / xp.sqrt(xp.sum(wide * wide, keepdims=True))


def _finished(xp: Any, context: Context, row: int, reason: FinishReason) -> Move:
    """The result: a row's new tokens. Nothing was chosen from what was computed last."""
    start, end = (int(xp.to_host(part)[row]) for part in (context.prompt_lengths, context.lengths))
    tokens = xp.to_host(context.tokens[row, start:end]).astype(np.int32)
    nothing = np.zeros(0, np.int32)
    return Move(
        carry=None,
        parents=nothing,
        tokens=nothing,
        settled=(int(tokens[-1]),),
        finished=(Hypothesis(tokens, reason),),
        recorded=nothing,
    )
