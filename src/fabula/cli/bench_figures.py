"""What `fabula bench` measures: the work of each figure, the same for every side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True, slots=True)
class Work:
    """Rows of random prompts, each continued by so many tokens; its rate is that of one part of it."""

    name: str
    prompt: int  # tokens a row
    rows: int
    new: int  # tokens a row
    part: Literal["first", "rest"]  # until every row has its first token: prefill; from there to the last: decode

    @property
    def tokens(self) -> int:
        """Tokens that the part computes."""
        return self.rows * (self.prompt if self.part == "first" else self.new - 1)

    def prompts(self, seed: int, round_number: int, vocabulary: int) -> list[list[int]]:
        """This round's prompts: no other round or figure of the seed has them."""
        random = np.random.default_rng([seed, round_number, self.prompt, self.rows])
        return random.integers(0, vocabulary, (self.rows, self.prompt)).tolist()


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured number, as it is shown."""

    name: str
    unit: str  # of the samples
    more_is_better: bool = False


def works(quick: bool) -> tuple[Work, ...]:
    """The figures of a loaded model; `quick` decodes fewer tokens."""
    steps = (17, 9, 5) if quick else (65, 33, 17)
    return (
        Work("prefill 128", 128, 1, 1, "first"),
        Work("prefill 512", 512, 1, 1, "first"),
        Work("decode 1 row", 16, 1, steps[0], "rest"),
        Work("decode 8 rows", 16, 8, steps[1], "rest"),
        Work("decode 32 rows", 16, 32, steps[2], "rest"),
    )


def figures_of(measured: tuple[Work, ...]) -> tuple[Figure, ...]:
    """A rate for each work."""
    return tuple(Figure(work.name, "tokens/s", more_is_better=True) for work in measured)


# Those of a fresh process; its files are in the page cache.
FRESH = (
    Figure("import", "s"),
    Figure("import, processor", "s"),
    Figure("load", "s"),
    Figure("first token", "s"),  # from the start of the process
    Figure("peak memory", "MiB"),
)
OWN = (
    Figure("decode 1 row, sampled", "tokens/s", more_is_better=True),
    Figure("cost of sampling", "%"),
    Figure("plan and commit", "µs"),
    Figure("read bandwidth", "GB/s", more_is_better=True),
)
SHARE = Figure("share of bandwidth", "%", more_is_better=True)
