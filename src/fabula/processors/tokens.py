"""Tokens that are suppressed or forced at certain lengths."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from fabula import arrays
from fabula.context import Context
from fabula.processors.arguments import token_ids, whole
from fabula.processors.history import listed
from fabula.processors.processor import LogitsProcessor, column
from fabula.processors.token_lists import as_numbers

__all__ = [
    "ForcedBOSTokenLogitsProcessor",
    "ForcedEOSTokenLogitsProcessor",
    "MinLengthLogitsProcessor",
    "MinNewTokensLengthLogitsProcessor",
    "SuppressTokensAtBeginLogitsProcessor",
    "SuppressTokensLogitsProcessor",
]

INFINITY = float("inf")


class MinLengthLogitsProcessor(LogitsProcessor):
    """No end token before a row, prompt included, is `min_length` long."""

    numbers: ClassVar[Mapping[str, float]] = {"min_length": 0}

    def __init__(self, min_length: int, eos_token_id: Any, device: Any = None) -> None:
        self.min_length = whole("min_length", min_length, 0)
        self.eos_token_id = token_ids("eos_token_id", eos_token_id)

    def process(self, scores: Any, context: Context) -> Any:
        least = column(arrays.of(scores), self.min_length, "int32", scores)
        return suppress(scores, context.lengths[:, None] < least, self.eos_token_id)

    def stack_key(self) -> Hashable:
        return self.eos_token_id

    listed = as_numbers("eos_token_id")


class MinNewTokensLengthLogitsProcessor(LogitsProcessor):
    """No end token before a row has `min_new_tokens` after its first `prompt_length_to_skip`."""

    numbers: ClassVar[Mapping[str, float]] = {"min_length": 0}

    def __init__(self, prompt_length_to_skip: int, min_new_tokens: int, eos_token_id: Any, device: Any = None) -> None:
        self.prompt_length_to_skip = whole("prompt_length_to_skip", prompt_length_to_skip, 0)
        self.min_new_tokens = whole("min_new_tokens", min_new_tokens, 0)
        self.min_length = self.prompt_length_to_skip + self.min_new_tokens
        self.eos_token_id = token_ids("eos_token_id", eos_token_id)

    def process(self, scores: Any, context: Context) -> Any:
        least = column(arrays.of(scores), self.min_length, "int32", scores)
        return suppress(scores, context.lengths[:, None] < least, self.eos_token_id)

    def stack_key(self) -> Hashable:
        return self.eos_token_id

    listed = as_numbers("eos_token_id")


class ForcedBOSTokenLogitsProcessor(LogitsProcessor):
    """The second token of a row is `bos_token_id`: the first that is generated after a decoder's start token."""

    def __init__(self, bos_token_id: int) -> None:
        self.bos_token_id = whole("bos_token_id", bos_token_id, 0)

    def process(self, scores: Any, context: Context) -> Any:
        return force(scores, context.lengths[:, None] == 1, (self.bos_token_id,))

    def stack_key(self) -> Hashable:
        return self.bos_token_id


class ForcedEOSTokenLogitsProcessor(LogitsProcessor):
    """The last token before `max_length` is an end token."""

    numbers: ClassVar[Mapping[str, float]] = {"max_length": -1}

    def __init__(self, max_length: int, eos_token_id: Any, device: Any = None) -> None:
        self.max_length = whole("max_length", max_length, 1)
        self.eos_token_id = token_ids("eos_token_id", eos_token_id)

    def process(self, scores: Any, context: Context) -> Any:
        longest = column(arrays.of(scores), self.max_length, "int32", scores)
        return force(scores, context.lengths[:, None] + 1 == longest, self.eos_token_id)

    def stack_key(self) -> Hashable:
        return self.eos_token_id

    listed = as_numbers("eos_token_id")


class SuppressTokensLogitsProcessor(LogitsProcessor):
    """Tokens that never come."""

    def __init__(self, suppress_tokens: Sequence[int], device: Any = None) -> None:
        self.suppress_tokens = token_ids("suppress_tokens", suppress_tokens)

    def process(self, scores: Any, context: Context) -> Any:
        return suppress(scores, context.lengths[:, None] >= 0, self.suppress_tokens)

    def stack_key(self) -> Hashable:
        return self.suppress_tokens

    listed = as_numbers("suppress_tokens")


class SuppressTokensAtBeginLogitsProcessor(LogitsProcessor):
    """Tokens that do not come where a row is exactly `begin_index` long."""

    numbers: ClassVar[Mapping[str, float]] = {"begin_index": -1}

    def __init__(self, begin_suppress_tokens: Sequence[int], begin_index: int, device: Any = None) -> None:
        self.begin_suppress_tokens = token_ids("begin_suppress_tokens", begin_suppress_tokens)
        self.begin_index = whole("begin_index", begin_index, 0)

    def set_begin_index(self, begin_index: int) -> None:
        """Moves the place."""
        self.begin_index = whole("begin_index", begin_index, 0)

    def process(self, scores: Any, context: Context) -> Any:
        begin = column(arrays.of(scores), self.begin_index, "int32", scores)
        return suppress(scores, context.lengths[:, None] == begin, self.begin_suppress_tokens)

    def stack_key(self) -> Hashable:
        return self.begin_suppress_tokens

    listed = as_numbers("begin_suppress_tokens")


def suppress(scores: Any, rows: Any, tokens: Any) -> Any:
    """Scores with -inf at tokens, or at each row's own Int["R K"], where rows Bool["R 1"] holds."""
    xp = arrays.of(scores)
    return scores if xp.surely_none(rows) else xp.scatter_where(scores, *listed(scores, tokens, rows), -INFINITY)


def force(scores: Any, rows: Any, tokens: Any) -> Any:
    """Scores with 0 at tokens, or at each row's own Int["R K"], and -inf elsewhere, where rows Bool["R 1"] holds."""
    xp = arrays.of(scores)
    if xp.surely_none(rows):
        return scores
    return xp.scatter_where(xp.where(rows, -INFINITY, scores), *listed(scores, tokens, rows), 0.0)
