"""A prompt that has been checked, and where its tokens go: nothing else reaches the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fabula.cache.kept import Continued, KeptRow
from fabula.decoding.recipe import Recipe
from fabula.decoding.strategy import FinishReason, Hypothesis

__all__ = ["FinishReason", "Kept", "PromptScores", "Request", "Sink", "Step"]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a turn's record asks to be kept of the pass before it, for R rows that took the turn."""

    scores: Any = None  # Float["R V"]: after the processors
    logits: Any = None  # Float["R V"]
    hidden_states: list[tuple[Any, ...]] | None = None  # a row, a layer: Float["N D"], at N new positions
    attentions: list[tuple[Any, ...]] | None = None  # a row, a layer: Float["heads N keys"]
    cross_attentions: list[tuple[Any, ...]] | None = None  # a row, a layer: Float["heads N S"], over a memory's columns

    def of(self, rows: np.ndarray) -> Kept:
        """The same of some rows, Int["K"]; the scores stay as they are."""
        return Kept(
            self.scores,
            None if self.logits is None else self.logits[rows],
            None if self.hidden_states is None else [self.hidden_states[row] for row in rows],
            None if self.attentions is None else [self.attentions[row] for row in rows],
            None if self.cross_attentions is None else [self.cross_attentions[row] for row in rows],
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One token of one row, as a sink receives it."""

    token: int
    log_probability: float | None = None  # of the raw logits
    top: tuple[tuple[int, float], ...] = ()  # the most likely tokens and their log-probabilities
    kept: Kept | None = None  # of this row alone, if anything was to be kept


@dataclass(frozen=True, slots=True)
class PromptScores:
    """How likely the model found the prompt's tokens but the first, which nothing predicts."""

    log_probabilities: np.ndarray  # Float["P-1"]
    top: tuple[tuple[tuple[int, float], ...], ...]  # at each, the most likely tokens and their log-probabilities

    @classmethod
    def of(cls, pieces: Sequence[tuple[np.ndarray, Sequence[Any]]]) -> PromptScores:
        """Several pieces of a prompt, one behind the other."""
        return cls(np.concatenate([chances for chances, _ in pieces]), tuple(top for _, best in pieces for top in best))


class Sink(Protocol):
    """Where a request's tokens go. Calls come from whichever thread runs the step.

    A sink whose attribute `streams` is False may get many tokens at once, later.
    """

    def put(self, row: int, step: Step) -> None:
        """The next token of the request's row; a search gives those of its results, best first."""

    def end(self, row: int, reason: FinishReason) -> None:
        """The row's last call when all went well."""

    def fail(self, error: BaseException) -> None:
        """The request ended without a result: its only further call."""


class FullSink(Sink, Protocol):
    """A sink of a request that searches, or that keeps more than tokens."""

    def turned(self, kept: Kept) -> None:
        """What was to be kept of a search's turn, of all its rows."""

    def found(self, row: int, hypothesis: Hypothesis) -> None:
        """A search's result, before its tokens."""

    def scored(self, prompt: PromptScores) -> None:
        """The prompt's log-probabilities, before the first token."""

    def kept(self, row: int, kept: KeptRow) -> None:
        """What a later request may go on from, before the row's end."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and the rows that continue it."""

    prompt: np.ndarray  # Int["P"]: int32, P >= 1, ids within the vocabulary, P < recipe.limits.max_length
    recipe: Recipe
    sink: Any  # a Sink; a FullSink where the recipe searches or keeps what only that takes
    seed: int = 0  # 64 bits
    stream: int = 0  # of the first row; row k draws from stream + k
    rows: int = 1  # that a strategy continues; a search has its own number of results
    salt: bytes | None = b""  # cached prefixes are shared under one salt only; None: with nobody
    negative: np.ndarray | None = None  # Int["N"]: the negative prompt, whose rows get the same new tokens
    memory: Any = None  # what the model's encoder made of the input
    vectors: Any = None  # Float["P D"]: inputs that take the place of the prompt's ids
    blind: int = 0  # how many of the prompt's ids, at its start, nobody shall see
    past: Continued | None = None  # what is computed already
    chunk: int | None = None  # the most positions of a row that a step computes

    @property
    def results(self) -> int:
        """How many sequences the sink gets."""
        return self.rows if self.recipe.search is None else self.recipe.search.results
