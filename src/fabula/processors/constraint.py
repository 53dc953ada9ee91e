"""A function of the caller's that says which tokens may come next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.errors import ArgumentError
from fabula.processors.arguments import whole
from fabula.processors.processor import LogitsProcessor

__all__ = ["PrefixConstrainedLogitsProcessor"]


class PrefixConstrainedLogitsProcessor(LogitsProcessor):
    """Keeps the tokens that `prefix_allowed_tokens_fn(batch_id, tokens of the row)` lists (De Cao et al. 2020).

    Rows of one prompt lie side by side, `num_beams` of them. Where nothing that is allowed has a finite score in any
    of a prompt's rows, all that is allowed scores 0.
    """

    def __init__(self, prefix_allowed_tokens_fn: Callable[[int, Any], Sequence[int]], num_beams: int = 1) -> None:
        self.prefix_allowed_tokens_fn = prefix_allowed_tokens_fn
        self.num_beams = whole("num_beams", num_beams, 1)

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        allowed = xp.asarray(self._allowed(xp, context, tuple(scores.shape)), "bool", like=scores)
        processed = xp.where(allowed, scores, -float("inf"))
        hopeless = ~xp.any(processed > -float("inf"))
        together = xp.all(xp.reshape(hopeless, (-1, self.num_beams)), keepdims=True)
        together = xp.reshape(xp.broadcast_to(together, (together.shape[0], self.num_beams)), (-1, 1))
        return xp.where(together & allowed, 0.0, processed)

    def _allowed(self, xp: Any, context: Context, shape: tuple[int, ...]) -> np.ndarray:
        """Bool["R V"] on the host."""
        allowed = np.zeros(shape, dtype=bool)
        for row, length in enumerate(xp.to_host(context.lengths).tolist()):
            prefix = xp.as_indices(context.tokens[row, :length])
            listed = list(self.prefix_allowed_tokens_fn(row // self.num_beams, prefix))
            if not listed:
                raise ArgumentError(
                    "`prefix_allowed_tokens_fn` must list at least one token, "
                    f"got none for batch {row // self.num_beams}. Let it allow the end token."
                )
            allowed[row, listed] = True
        return allowed
