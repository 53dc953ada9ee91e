"""The green-list watermark: tokens of a keyed part of the vocabulary, another one after each context, gain a bias."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.errors import ArgumentError
from fabula.processors.arguments import between, whole
from fabula.processors.history import last_tokens
from fabula.processors.processor import LogitsProcessor
from fabula.watermark.green_seeds import SCHEMES, GreenLists
from fabula.watermark.twister import LARGEST

__all__ = ["WatermarkLogitsProcessor"]

_LOG = logging.getLogger("fabula.watermark")
CANDIDATES = 40  # the likeliest tokens, which are all that selfhash looks at


class WatermarkLogitsProcessor(LogitsProcessor):
    """Adds `bias` to the scores of green tokens (Kirchenbauer et al. 2023, "A Watermark for Large Language Models").

    The lists are those of `torch.randperm` on a CPU generator, whatever framework or device the scores are on. Rows
    with fewer tokens than `context_width` are not marked. vocab_size: the model's; None: as many as there are scores.
    device: taken for the sake of code written for transformers; nothing depends on it.
    Raises ArgumentError for values out of range.
    """

    reads_host = True

    def __init__(
        self,
        vocab_size: int | None,
        device: Any = None,
        greenlist_ratio: float = 0.25,
        bias: float = 2.0,
        hashing_key: int = 15485863,
        seeding_scheme: str = "lefthash",
        context_width: int = 1,
    ) -> None:
        if seeding_scheme not in SCHEMES:
            raise ArgumentError(f"`seeding_scheme` must be one of {SCHEMES}, got {seeding_scheme!r}. Use 'lefthash'.")
        self.vocab_size = None if vocab_size is None else _vocabulary(vocab_size)
        self.greenlist_ratio = between("greenlist_ratio", greenlist_ratio, "(0, 1)", "0.25 is usual.")
        self.bias = bias
        self.hash_key = whole("hashing_key", hashing_key, -(2**63))
        self.seeding_scheme = seeding_scheme
        self.context_width = whole("context_width", context_width, 1)

    def lists(self, width: int) -> GreenLists:
        """The green lists over scores of that width."""
        vocabulary = width if self.vocab_size is None else self.vocab_size
        count = int(vocabulary * self.greenlist_ratio)
        return GreenLists(vocabulary, count, self.hash_key, self.seeding_scheme, self.context_width)

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        recent = xp.to_host(last_tokens(xp, context, self.context_width))
        marked = recent[:, 0] >= 0
        if not marked.all():
            _LOG.warning(
                f"`input_ids` should have at least `{self.context_width}` tokens but has "
                f"{int((recent >= 0).sum(axis=-1).min())}. The seeding will be skipped for this generation step!"
            )
        if not marked.any():
            return scores
        mark = self._by_candidates if self.seeding_scheme == "selfhash" else self._by_last_token
        return mark(xp, scores, recent, marked)

    def _by_last_token(self, xp: Any, scores: Any, recent: np.ndarray, marked: np.ndarray) -> Any:
        """The scores with the list after each row's last token favoured."""
        lists = self.lists(scores.shape[-1])
        greens = np.zeros(scores.shape, dtype=bool)
        width = min(lists.vocabulary, scores.shape[-1])
        for row in np.flatnonzero(marked):
            greens[row, :width] = lists.greens_after(int(recent[row, -1]))[:width]
        return xp.where(xp.asarray(greens, "bool", like=scores), scores + self.bias, scores)

    def _by_candidates(self, xp: Any, scores: Any, recent: np.ndarray, marked: np.ndarray) -> Any:
        """The scores with those of the likeliest tokens favoured that are in the list they would seed themselves."""
        _, columns = xp.top_k(scores, min(CANDIDATES, scores.shape[-1]))
        contexts = np.maximum(recent[:, 1:], 0)  # of a row that is too short anything will do
        greens = self.lists(scores.shape[-1]).in_their_own(contexts, xp.to_host(columns))
        chosen = xp.asarray(greens & marked[:, None], "bool", like=scores)
        return xp.scatter_where(scores, columns, chosen, xp.take_along_axis(scores, columns) + self.bias)

    def stack_key(self) -> Hashable:
        return (
            self.vocab_size,
            self.greenlist_ratio,
            self.bias,
            self.hash_key,
            self.seeding_scheme,
            self.context_width,
        )


def _vocabulary(value: Any) -> int:
    if whole("vocab_size", value, 1) > LARGEST:
        raise ArgumentError(f"`vocab_size` must be at most {LARGEST}, got {value}. Give the size of a vocabulary.")
    return int(value)
