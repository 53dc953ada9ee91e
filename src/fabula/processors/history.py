"""What rows have said so far, as arrays: which tokens occur, which came last, which vocabulary entries are meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fabula import arrays
from fabula.context import Context

__all__ = ["last_tokens", "mark", "marked", "seen_tokens"]


def mark(xp: Any, tokens: Any, counts: Any, vocabulary: int) -> Any:
    """Bool["R V"]: the tokens ["R K"] of each row that `counts` ["R K"] and that are in [0, V)."""
    inside = counts & (tokens >= 0) & (tokens < vocabulary)
    nothing = xp.zeros((tokens.shape[0], vocabulary + 1), "bool", like=tokens)
    return xp.scatter_set(nothing, xp.where(inside, tokens, vocabulary), True)[:, :vocabulary]


def marked(scores: Any, tokens: Sequence[int]) -> Any:
    """Bool["1 V"]: where the vocabulary entries of scores are among some tokens."""
    xp = arrays.of(scores)
    listed = xp.asarray([list(tokens)], "int32", like=scores)
    return mark(xp, listed, listed >= 0, scores.shape[-1])


def seen_tokens(xp: Any, context: Context, vocabulary: int, ignored: Any = 0) -> Any:
    """Bool["R V"]: tokens that occur in each row after its first `ignored` ones, a number or Int["R 1"]."""
    if context.seen is not None and isinstance(ignored, int) and ignored == 0:
        return context.seen
    places = xp.arange(context.tokens.shape[1], like=context.tokens)[None, :]
    return mark(xp, context.tokens, (places < context.lengths[:, None]) & (places >= ignored), vocabulary)


def last_tokens(xp: Any, context: Context, count: int) -> Any:
    """Int["R N"]: the last `count` tokens of each row; -1, which no token equals, where a row is shorter."""
    places = context.lengths[:, None] - count + xp.arange(count, like=context.tokens)[None, :]
    found = xp.take_along_axis(context.tokens, xp.maximum(places, 0))
    return xp.where(places < 0, -1, found)
