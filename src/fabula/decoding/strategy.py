"""What a decoding mode is: a strategy that turns logits into tokens, and what it is given and gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal, Protocol

import numpy as np

from fabula import arrays
from fabula.arrays.random import split_seed
from fabula.context import Context
from fabula.processors.rows import Stacked, select
from fabula.taps import Taps

__all__ = [
    "Choice",
    "Draftable",
    "Drafter",
    "Draw",
    "Ends",
    "Guesser",
    "Hypothesis",
    "Move",
    "Search",
    "Strategy",
    "Tapped",
    "Turn",
    "Underway",
]

FinishReason = Literal["stop", "length", "time", "cancelled"]
Ends = Callable[[int, int], FinishReason | None]  # (row, token) -> why the row would end with this token; None: not


@dataclass(frozen=True, slots=True)
class Draw:
    """What fixes the random bits of R rows. NumPy arrays on the host."""

    sampled: np.ndarray  # Bool["R"]: rows that draw; the others take the best token
    seed_low: np.ndarray  # Int["R"]: the seeds' low words, as arrays/random.py splits them
    seed_high: np.ndarray  # Int["R"]: their high words
    stream: np.ndarray  # Int["R"]: which of a seed's independent texts the row is
    position: np.ndarray  # Int["R"]: the index that the chosen token will have in its row, padding not counted

    @classmethod
    def of(
        cls, seeds: Sequence[int], streams: Sequence[int], positions: Sequence[int], sampled: Sequence[bool]
    ) -> Draw:
        """The draw of rows with these seeds, each in [0, 2^64)."""
        words = _words(tuple(seeds))
        return cls(
            sampled=np.array(sampled, dtype=bool),
            seed_low=words[:, 0],
            seed_high=words[:, 1],
            stream=np.array(streams, dtype=np.int32),
            position=np.array(positions, dtype=np.int32),
        )

    def select(self, rows: np.ndarray) -> Draw:
        """The draw of some rows, Int["N"]."""
        return Draw(
            self.sampled[rows], self.seed_low[rows], self.seed_high[rows], self.stream[rows], self.position[rows]
        )


@lru_cache(maxsize=64)  # seeds stay the same from token to token
def _words(seeds: tuple[int, ...]) -> np.ndarray:
    """Int["R 2"]: their low and high words."""
    return np.array([split_seed(seed) for seed in seeds], dtype=np.int32).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class Tapped:
    """What a step computed for R rows beyond the last logits, as the strategy's taps ask. In the model's framework."""

    hidden: Sequence[Any] = ()  # R of Float["N D"]: after the final norm, at the N positions since the last turn
    last_hidden: Any = None  # Float["R D"]: the same, at the last position
    layer_logits: Mapping[int, Any] | None = None  # layer -> Float["R V"]: the head on its output (0: embeddings)


@dataclass(frozen=True, slots=True)
class Turn:
    """R rows that are ready to choose: what the model says of their next token, and what may be known of them."""

    logits: Any  # Float["R V"]: the model's own
    process: Stacked  # the rows' processors
    known: Callable[[], Context]  # what the processors may know; it is made where somebody asks
    draw: Draw
    tapped: Tapped = Tapped()
    guesses: Sequence[Any] = ()  # R of Float["V'"]: what a drafter drew a draft of this token from; None: no such draft

    @property
    def context(self) -> Context:
        """What may be known of the rows."""
        return self.known()

    def processed(self, scores: Any) -> Any:
        """Float["R V"]: what the rows' processors make of scores Float32["R V"]."""
        return self.process(scores, self.known()) if self.process.steps else scores

    def of(self, rows: np.ndarray) -> Turn:
        """The turn of some rows, Int["N"], without what was tapped."""
        xp = arrays.of(self.logits)
        chosen = xp.asarray(rows, "int32", like=self.logits)
        known = cache(lambda: select(self.known(), chosen))
        return Turn(xp.take(self.logits, chosen), self.process.of(rows), known, self.draw.select(rows))


@dataclass(frozen=True, slots=True)
class Choice:
    """What a strategy chose for R rows, in the framework of the logits."""

    tokens: Any  # Int["R"]
    scores: Any = None  # Float["R V"]: what the processors made of the logits


class Strategy(Protocol):
    """A way to choose one token a row, each row for itself: rows of any requests take a turn together.

    Strategies are compared: equal ones share a turn.
    """

    @property
    def taps(self) -> Taps:
        """What it needs of a forward pass beyond the logits."""

    def choose(self, turn: Turn) -> Choice:
        """The next tokens of the rows. Raises NumericalError where a row's scores hold no finite number."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished sequence of a search."""

    tokens: np.ndarray  # Int["N"]: new tokens, its end token included
    reason: FinishReason
    score: float | None = None  # what it was ranked by
    rows: np.ndarray | None = None  # Int["N"]: the row that each token was chosen after


@dataclass(frozen=True, slots=True)
class Move:
    """One turn of a search, on the host: what its rows become."""

    carry: Any  # what the search wants back at its next turn
    parents: np.ndarray  # Int["W'"]: the row that each new row continues; there may be more or fewer than before
    tokens: np.ndarray  # Int["W'"]: what each continues with; of N turns at once Int["W' N"]
    settled: tuple[int, ...] = ()  # tokens that can be shown now: the sequence's next ones, whatever else happens
    finished: tuple[Hypothesis, ...] | None = None  # the result, best first; then parents and tokens mean nothing
    scores: Any = None  # Float["R V"]: what was chosen from, to be recorded; of N turns at once N of them
    recorded: np.ndarray | None = None  # Int["K"]: the rows whose logits and states are; None: all
    written: np.ndarray | None = None  # Int["N"]: first all rows become one, with these in place of its last token


@dataclass(frozen=True, slots=True)
class Underway:
    """A sequence that a search is underway with, as a turn finds it."""

    carry: Any  # what the search wanted back; None: this is the sequence's first turn
    ends: Ends  # knows all limits of its rows, from 0: end tokens, lengths, stop strings, time, the caller's own


class Search(Protocol):
    """A way to choose that keeps several rows a sequence, such as beams; what becomes of one is no other's matter.

    Searches are compared: sequences of equal ones that have as many rows share a turn.
    """

    @property
    def taps(self) -> Taps:
        """What it needs of a forward pass beyond the logits."""

    @property
    def whole_prompt(self) -> bool:
        """Whether it needs what its taps say of all of the prompt's positions, not only the last."""

    @property
    def width(self) -> int:
        """The most rows that it keeps."""

    @property
    def results(self) -> int:
        """How many hypotheses it gives."""

    def advance(self, turn: Turn, underway: Sequence[Underway]) -> list[Move]:
        """What the rows of each of G sequences become; each has R / G rows of the turn, in order.

        At first that is one row, the prompt's, and later the rows of its last move. All G are at their first turn or
        none is, and draw or do not.
        """


@dataclass(frozen=True, slots=True)
class Draftable:
    """A row that may be given drafts."""

    key: int  # the same for a row as long as it lives
    tokens: np.ndarray  # Int["L"]: prompt and new tokens
    prompt_length: int
    most: int  # more drafts than this could not be used
    seed: int
    stream: int
    processors: Sequence[Any] = ()  # the row's own, so that a drafter may choose as the row will
    sampled: bool = False  # whether the row draws; else it takes the best token


class Drafter(Protocol):
    """Guesses what rows will go on with. A guess changes how fast a row goes on, never with what."""

    def propose(self, rows: Sequence[Draftable]) -> Sequence[np.ndarray]:
        """For each row Int["K"], 0 <= K <= row.most: tokens to be judged in the row's next step."""

    def judged(self, key: int, proposed: int, kept: int) -> None:
        """How many of a row's drafts stood."""

    def forget(self, key: int) -> None:
        """The row has ended."""


class Guesser(Drafter, Protocol):
    """A drafter that knows what it drew its drafts from."""

    def guesses(self, key: int) -> Sequence[Any]:
        """K of Float["V"]: the scores that each of the row's last K drafts was chosen by."""
