"""The first new token of a healed prompt: one that goes on from the text of the token that was taken off."""

from __future__ import annotations

from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.processors.arguments import token_ids, whole
from fabula.processors.processor import LogitsProcessor

__all__ = ["TokenHealingLogitsProcessor"]

BIAS = 10.0  # on every token that begins with the text that was taken off
FAVOUR = 1.0  # more for the token itself, so that whole words are seldom lengthened
FAR = 1e5  # how far all others fall behind the chosen one


class TokenHealingLogitsProcessor(LogitsProcessor):
    """Where a row is `length` long, decides for the best token after a bias of 10 on `extensions`, and 11 on `token`.

    The decision is a score of 0, and others fall far behind in their order: it holds in sampling and beams, but a
    processor that forbids the token leads to the next best. It comes before what changes scores otherwise.
    """

    def __init__(self, length: int, token: int, extensions: Any) -> None:
        self.length = whole("length", length, 1)
        self.token = whole("token", token, 0)
        self.extensions = token_ids("extensions", extensions)
        self.acts_until = self.length
        columns = np.unique(np.array([self.token, *self.extensions], dtype=np.int32))
        self._columns = columns
        self._bias = np.where(columns == self.token, BIAS + FAVOUR, BIAS).astype(np.float32)

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        healed = context.lengths[:, None] == self.length
        if xp.surely_none(healed):
            return scores
        known = self._columns < scores.shape[-1]
        columns = xp.asarray(self._columns[known][None], "int32", like=scores)
        bias = xp.asarray(self._bias[known][None], "float32", like=scores)
        shape = (scores.shape[0], columns.shape[1])
        biased = xp.scatter_add(scores, xp.broadcast_to(columns, shape), xp.broadcast_to(bias, shape))
        best = xp.argmax(biased)[:, None]
        behind = biased - xp.take_along_axis(biased, best) - FAR
        return xp.where(healed, xp.scatter_set(behind, best, xp.zeros_like(behind[:, :1])), scores)
