"""What a decoding mode is: a strategy that turns logits into tokens, and what it is given and gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fabula.arrays.random import split_seed
from fabula.context import Context

if TYPE_CHECKING:
    from fabula.ops.protocol import Taps

__all__ = ["Choice", "Draw", "Process", "Strategy"]

Process = Callable[[Any, Context], Any]  # (scores Float["R V"], context) -> scores: the rows' processors


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
        words = np.array([split_seed(seed) for seed in seeds], dtype=np.int32).reshape(-1, 2)
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


@dataclass(frozen=True, slots=True)
class Choice:
    """What a strategy chose for R rows, in the framework of the logits."""

    tokens: Any  # Int["R"]: what each row goes on with
    scores: Any = None  # Float["R V"]: what the processors made of the logits
    parents: Any = None  # Int["R"]: the row whose text and cache each goes on from; None: its own
    kept: Any = None  # Int["R"]: how many of a row's drafts stand before its token; None: there were none
    carry: Any = None  # what the strategy wants back at its next choice, such as the beams' sums


class Strategy(Protocol):
    """A decoding mode. It calls `process` when and as often as it needs, on raw logits or on what it made of them."""

    width: int  # rows a sequence: 1, or the number of beams
    taps: Taps | None  # what it needs of a forward pass beyond the logits

    def propose(self, context: Context, carry: Any) -> Any:
        """Int["R K"]: tokens to be computed and judged together with each row's last one; None: no drafts."""

    def choose(
        self, logits: Any, process: Process, context: Context, draw: Draw, tapped: Any = None, carry: Any = None
    ) -> Choice:
        """The next tokens of R rows, from logits Float["R V"]."""

    def finish(self, context: Context, carry: Any) -> Any:
        """Int["N"]: the rows that are the result, best first a sequence; None: all, as they are."""
