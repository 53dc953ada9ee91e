"""Contrastive search: of the k likeliest tokens, the one that says most that the text has not said yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.decoding.sample import best_tokens, check_chosen
from fabula.decoding.strategy import FinishReason, Hypothesis, Move, Turn, Underway
from fabula.errors import ArgumentError
from fabula.taps import Taps

__all__ = ["Candidates", "ContrastiveSearch", "directions"]

FINAL = Taps(final_hidden=True)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is known of the rows of the last move, one a candidate, before the model has read the candidates."""

    tokens: np.ndarray  # Int["W"]
    probabilities: np.ndarray  # Float["W"]
    reasons: tuple[FinishReason | None, ...]  # why the sequence would end with the candidate
    read: Any  # Float["L D"]: the final hidden states of the sequence so far, each of length 1


@dataclass(frozen=True, slots=True)
class _Text:
    """A sequence at a turn, with the candidate that it was settled to go on with."""

    row: int  # of the turn
    candidate: int  # which of the sequence's rows that is
    read: Any  # Float["L D"]: the final hidden states so far, each of length 1
    settled: tuple[int, ...] = ()  # the candidate; nothing at first
    reason: FinishReason | None = None  # why the sequence ends with it


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

    def advance(self, turn: Turn, underway: Sequence[Underway]) -> list[Move]:
        """Settles the best of the candidates that were read, and has its likeliest successors read."""
        texts = _begun(turn) if underway[0].carry is None else self._settled(turn, [one.carry for one in underway])
        living = [(text, one) for text, one in zip(texts, underway, strict=True) if text.reason is None]
        proposed = iter(self._proposed(turn, *zip(*living, strict=True)) if living else ())
        return [next(proposed) if text.reason is None else _finished(turn.context, text) for text in texts]

    def _settled(self, turn: Turn, carries: Sequence[Candidates]) -> list[_Text]:
        """The texts with the candidate that is worth most."""
        xp = arrays.of(turn.logits)
        found, each, texts = directions(turn.tapped.last_hidden), turn.logits.shape[0] // len(carries), []
        for place, carry in enumerate(carries):
            own = found[place * each : (place + 1) * each]
            known = xp.asarray(carry.read, "float32", like=own)  # on the host, where a loop has settled tokens before
            penalties = xp.to_host(xp.max(own @ xp.matrix_transpose(known)))
            winner = int(((1 - self.alpha) * carry.probabilities - self.alpha * penalties).argmax())
            read = xp.concat([known, own[winner : winner + 1]], axis=0)
            settled = (int(carry.tokens[winner]),)
            texts.append(_Text(place * each + winner, winner, read, settled, carry.reasons[winner]))
        return texts

    def _proposed(self, turn: Turn, texts: Sequence[_Text], underway: Sequence[Underway]) -> list[Move]:
        """The likeliest successors of each text, each to be read in a row of its own."""
        turn = turn.of(np.array([text.row for text in texts], np.int32))
        xp = arrays.of(turn.logits)
        scores = turn.processed(xp.astype(turn.logits, "float32"))
        ranked = xp.to_host(scores) if arrays.on_host(scores) else scores  # where NumPy takes the fewest steps
        xp = arrays.of(ranked)
        check_chosen(xp, ranked, best_tokens(xp, ranked))
        values, columns = xp.top_k(ranked, min(self.width, scores.shape[-1]))
        chances = xp.exp(values - xp.logsumexp(ranked, keepdims=True))
        values, columns, chances = (xp.to_host(part) for part in (values, columns, chances))
        moves = []
        for place, (text, one) in enumerate(zip(texts, underway, strict=True)):
            count, row = int((values[place] > -np.inf).sum()), text.candidate  # what was removed comes last
            tokens = columns[place, :count].astype(np.int32)
            reasons = tuple(one.ends(row, token) for token in tokens.tolist())
            moves.append(
                Move(
                    carry=Candidates(tokens, chances[place, :count], reasons, text.read),
                    parents=np.full(count, row, np.int32),
                    tokens=tokens,
                    settled=text.settled,
                    scores=scores[place : place + 1],
                    recorded=np.array([row]),
                )
            )
        return moves


def _begun(turn: Turn) -> list[_Text]:
    """The prompts."""
    return [_Text(row, 0, directions(hidden)) for row, hidden in enumerate(turn.tapped.hidden)]


def directions(hidden: Any) -> Any:
    """Float32["N D"]: each vector over its length."""
    xp = arrays.of(hidden)
    wide = xp.astype(hidden, "float32")
    return wide / xp.sqrt(xp.sum(wide * wide, keepdims=True))


def _finished(context: Context, text: _Text) -> Move:
    """The result: a row's new tokens. Nothing was chosen from what was computed last."""
    xp, row = arrays.of(context.tokens), text.row
    start, end = (int(xp.to_host(part)[row]) for part in (context.prompt_lengths, context.lengths))
    tokens = xp.to_host(context.tokens[row, start:end]).astype(np.int32)
    assert text.reason is not None
    nothing = np.zeros(0, np.int32)
    return Move(
        carry=None,
        parents=nothing,
        tokens=nothing,
        settled=text.settled,
        finished=(Hypothesis(tokens, text.reason),),
        recorded=nothing,
    )
