"""Biases on sequences, of each row its own, as arrays of rounded sizes: other lists are other numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.processors.history import last_tokens
from fabula.processors.processor import LogitsProcessor
from fabula.processors.token_lists import bucket

__all__ = ["ListedBias", "listed_biases"]

LEAST = 4  # sequences
ANY = -1  # in place of a token that is not looked at


class ListedBias(LogitsProcessor):
    """Adds what SequenceBiasLogitsProcessor adds, from lists of S sequences a row, of up to N tokens before the last.

    Its attributes are set before it is used: to arrays of the scores' framework, as `listed_biases` makes them.
    """

    before: Any  # Int["R S N"]: the tokens before each sequence's last, behind ANY
    biases: Any  # Float32["R S"]: 0 where there is no sequence
    places: Any  # Int["R S"]: which of `last` is the sequence's
    last: Any  # Int["R S"]: the last tokens, each once

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        ends = last_tokens(xp, context, self.before.shape[2])[:, None, :]
        matches = xp.all((self.before == ANY) | (self.before == ends))
        sums = xp.zeros(self.last.shape, "float32", like=scores)
        sums = xp.scatter_add(sums, self.places, xp.where(matches, self.biases, 0.0))
        return xp.scatter_where(scores, self.last, sums != 0, xp.take_along_axis(scores, self.last) + sums)


def listed_biases(members: Sequence[Mapping[tuple[int, ...], float]]) -> dict[str, np.ndarray]:
    """The attributes of the biases of R rows, {(token, ...): bias} each; S and N are powers of two."""
    shape = len(members), bucket(max([LEAST, *map(len, members)])), bucket(max(map(_longest, members), default=1))
    before, biases = np.full(shape, ANY, np.int32), np.zeros(shape[:2], np.float32)
    places, last = (np.zeros(shape[:2], np.int32) for _ in range(2))
    for row, sequences in enumerate(members):
        ordered = sorted(sequences.items(), key=lambda pair: len(pair[0]))  # summed in the same order
        for place, (tokens, bias) in enumerate(ordered):
            before[row, place, shape[2] - len(tokens) + 1 :] = tokens[:-1]
            biases[row, place] = bias
        found, own = np.unique(np.array([tokens[-1] for tokens, _ in ordered], np.int32), return_inverse=True)
        last[row, : len(found)], places[row, : len(own)] = found, own
    return {"before": before, "biases": biases, "places": places, "last": last}


def _longest(sequences: Mapping[tuple[int, ...], float]) -> int:
    """How many tokens stand before the last of its longest sequence, or 1."""
    return max([1, *(len(tokens) - 1 for tokens in sequences)])
