"""Prompt lookup: what followed the last time that a row ended as it does now is its draft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fabula.decoding.strategy import Draftable
from fabula.errors import ArgumentError

__all__ = ["PromptLookup", "continuation"]

FURTHER = 16  # tokens before an n-gram that tell its occurrences apart
LATEST = 64  # occurrences that are compared


@dataclass(frozen=True, slots=True)
class PromptLookup:
    """Saxena 2023, "Prompt lookup decoding". A pure function of the tokens: it keeps nothing."""

    number: int  # the most tokens of a draft
    largest: int = 2  # of the n-grams at the row's end that are looked for; shorter ones down to 1 follow
    eos: frozenset[int] = frozenset()  # a draft ends with one of these

    def __post_init__(self) -> None:
        for name, value in (("prompt_lookup_num_tokens", self.number), ("max_matching_ngram_size", self.largest)):
            if value < 1:
                raise ArgumentError(f"`{name}` must be at least 1, got {value}. Leave it out for no lookup.")

    def propose(self, rows: Sequence[Draftable]) -> Sequence[np.ndarray]:
        """For each row Int["K"], K <= number and row.most; empty where its end occurs nowhere before."""
        return [self._draft(row) for row in rows]

    def judged(self, key: int, proposed: int, kept: int) -> None:
        """Nothing is learnt."""

    def forget(self, key: int) -> None:
        """Nothing is kept."""

    def _draft(self, row: Draftable) -> np.ndarray:
        draft = continuation(row.tokens, self.largest, min(self.number, row.most))
        ends = (place for place, token in enumerate(draft.tolist()) if token in self.eos)
        return draft[: next(ends, len(draft)) + 1]


def continuation(tokens: np.ndarray, largest: int, count: int) -> np.ndarray:
    """Int["count"]: what follows the most telling earlier occurrence of the tokens' end, Int["L"]; empty without one.

    Longer n-grams tell more than shorter ones; of one n-gram's occurrences those before which more tokens are the same
    too, then the latest. Where the tokens end before the draft does, it goes on with its own, as a row that repeats
    itself will.
    """
    for size in range(min(largest, len(tokens) - 1), 0, -1):
        if count < 1:
            break
        starts = _occurrences(tokens, size)
        if len(starts):
            best = max(starts[-LATEST:].tolist(), key=lambda start: (_same_before(tokens, start), start))
            return tokens[best + np.arange(count) % (len(tokens) - best)].astype(np.int32)
    return np.zeros(0, np.int32)


def _occurrences(tokens: np.ndarray, size: int) -> np.ndarray:
    """Int["N"]: the places behind the earlier occurrences of the last `size` tokens."""
    end = len(tokens)
    same = np.ones(end - size, bool)
    for back in range(1, size + 1):
        same &= tokens[size - back : end - back] == tokens[end - back]
    return np.flatnonzero(same) + size


def _same_before(tokens: np.ndarray, start: int) -> int:
    """How many of the tokens before `start` are those at the end."""
    reach = min(start, FURTHER)
    apart = np.flatnonzero(tokens[start - reach : start][::-1] != tokens[len(tokens) - reach :][::-1])
    return int(apart[0]) if len(apart) else reach
