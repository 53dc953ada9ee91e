"""What is done with a row's logits, and when the row ends: one recipe for generate(), the command line and a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from fabula.decoding.sample import SAMPLE
from fabula.decoding.strategy import Drafter, Search, Strategy
from fabula.processors.processor import LogitsProcessorList
from fabula.taps import NO_TAPS

Ends = Callable[[np.ndarray, int], bool]  # (a row's ids Int["L"], how many of them are the prompt) -> whether it ends


class TextPieces(Protocol):
    """One row's ids as text."""

    def put(self, token_id: int) -> str:
        """The text that this id completes."""

    def fork(self) -> TextPieces:
        """The same text once more, to be continued otherwise."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a row ends."""

    max_length: int  # prompt and new tokens
    eos: frozenset[int] = frozenset()  # any of these, once chosen, ends the row and stays in it
    stop_strings: tuple[str, ...] = ()  # text of new tokens; the tokens that complete one stay in the row
    pieces: Callable[[], TextPieces] | None = None  # a new row's text; given if stop_strings is
    max_time: float | None = None  # seconds since the request was admitted to the engine
    ends: tuple[Ends, ...] = ()  # the caller's own criteria


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of each step beside the chosen token."""

    log_probabilities: int | None = None  # log-softmax of the raw logits: the chosen token's, and of so many best ones
    scores: bool = False  # what the processors made of the logits
    logits: bool = False  # what the model gave
    prompt: bool = False  # log-probabilities of the prompt's tokens too, as many best ones
    hidden_states: bool = False  # of every layer, at every position computed
    attentions: bool = False  # of every layer, from every position computed
    past: bool = False  # the rows as they end, to go on from

    @property
    def keeps(self) -> bool:
        """Whether arrays of each turn are kept."""
        return self.scores or self.logits or self.hidden_states or self.attentions

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept of new tokens but themselves."""
        return self.log_probabilities is None and not self.keeps


@dataclass(frozen=True, slots=True)
class Compilation:
    """What torch.compile is to be called with for the forward of a loop of many steps."""

    arguments: tuple[tuple[str, Any], ...]  # by name; of "options" pairs again


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one row is decoded."""

    processors: LogitsProcessorList
    limits: Limits
    sampled: bool = False  # a keyed draw; otherwise the best token
    record: Record = Record()
    strategy: Strategy | Search = SAMPLE
    drafter: Drafter | None = None  # goes with a strategy, not with a search
    compiled: Compilation | None = None

    @property
    def search(self) -> Search | None:
        """The strategy, if it searches."""
        return cast(Search, self.strategy) if hasattr(self.strategy, "advance") else None

    @property
    def is_plain(self) -> bool:
        """Whether a step computes nothing for its rows but the logits of their last tokens."""
        return self.drafter is None and self.strategy.taps == NO_TAPS and not self.wants_whole_prompt

    @property
    def is_closed(self) -> bool:
        """Whether nothing but the rows' tokens and numbers decides how they go on behind their first turn.

        Of the processors each says so itself, and of the strategies greedy search, sampling, DoLa and beam search can,
        the diverse and the constrained one too, and contrastive search.
        """
        limits, record = self.limits, self.record
        ends = limits.stop_strings or limits.ends or limits.max_time is not None
        shown = record.hidden_states or record.attentions
        return self.drafter is None and not shown and not ends

    @property
    def wants_outputs(self) -> bool:
        """Whether more than logits is wanted of every position of the prompt."""
        record, search = self.record, self.search
        return record.hidden_states or record.attentions or (search is not None and search.whole_prompt)

    @property
    def wants_whole_prompt(self) -> bool:
        """Whether every position of the prompt has to be computed for its outputs."""
        return self.record.prompt or self.wants_outputs
