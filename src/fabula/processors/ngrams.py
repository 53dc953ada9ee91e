"""No n-gram twice: not one of the row's own, nor one of the encoder's input."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.processors.arguments import matrix_of_tokens, whole
from fabula.processors.history import in_vocabulary, last_tokens
from fabula.processors.penalties import encoder_key, encoder_rows
from fabula.processors.processor import LogitsProcessor
from fabula.processors.token_lists import tokens_listed

__all__ = ["EncoderNoRepeatNGramLogitsProcessor", "NoRepeatNGramLogitsProcessor"]

INFINITY = float("inf")


class NoRepeatNGramLogitsProcessor(LogitsProcessor):
    """Removes tokens that would complete an n-gram that the row, prompt included, holds (Paulus et al. 2017)."""

    def __init__(self, ngram_size: int) -> None:
        self.ngram_size = whole("ngram_size", ngram_size, 1)

    def process(self, scores: Any, context: Context) -> Any:
        if context.tokens.shape[1] < self.ngram_size:
            return scores
        xp = arrays.of(scores)
        prefix = last_tokens(xp, context, self.ngram_size - 1)
        return without_completions(scores, context.tokens, context.lengths[:, None], prefix)

    def stack_key(self) -> Hashable:
        return self.ngram_size


class EncoderNoRepeatNGramLogitsProcessor(LogitsProcessor):
    """Removes tokens that would complete an n-gram of the encoder's input."""

    def __init__(self, encoder_ngram_size: int, encoder_input_ids: Any) -> None:
        self.ngram_size = whole("encoder_ngram_size", encoder_ngram_size, 1)
        self.encoder_input_ids = matrix_of_tokens("encoder_input_ids", encoder_input_ids)

    def process(self, scores: Any, context: Context) -> Any:
        if self.encoder_input_ids.shape[1] < self.ngram_size:
            return scores
        xp, tokens = arrays.of(scores), encoder_rows(self.encoder_input_ids, scores)
        prefix = last_tokens(xp, context, self.ngram_size - 1)
        return without_completions(scores, tokens, xp.sum(tokens >= 0, keepdims=True), prefix)

    def stack_key(self) -> Hashable | None:
        key = encoder_key(self.encoder_input_ids)
        return None if key is None else (self.ngram_size, key)

    @classmethod
    def listed(cls, members: Sequence[Any]) -> tuple[LogitsProcessor, Mapping[str, np.ndarray]]:
        one = cls.__new__(cls)
        one.ngram_size = next((member.ngram_size for member in members if member is not None), 1)
        return one, tokens_listed(members, "encoder_input_ids", cls.numbers)

    def list_key(self) -> Hashable:
        return self.ngram_size


def without_completions(scores: Any, tokens: Any, lengths: Any, prefix: Any) -> Any:
    """Scores with -inf at all that follows `prefix` ["R N-1"] in tokens ["R L"], of which `lengths` ["R 1"] count."""
    xp = arrays.of(scores)
    before = prefix.shape[1]
    windows = tokens.shape[1] - before
    matches = xp.arange(windows, like=tokens)[None, :] + before < lengths
    for place in range(before):
        matches = matches & (tokens[:, place : place + windows] == prefix[:, place : place + 1])
    ends = tokens[:, before:]
    return xp.scatter_where(scores, ends, in_vocabulary(ends, matches, scores.shape[-1]), -INFINITY)
