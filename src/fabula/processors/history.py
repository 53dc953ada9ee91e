"""What rows have said so far, as arrays: which tokens occur, which came last, which columns of scores are meant."""

from __future__ import annotations

from typing import Any

from fabula import arrays
from fabula.context import Context

__all__ = ["in_vocabulary", "last_tokens", "listed", "occurring"]


def in_vocabulary(tokens: Any, counts: Any, vocabulary: int) -> Any:
    """Bool["R K"]: the tokens ["R K"] of each row that `counts` ["R K"] and that are in [0, V)."""
    return counts & (tokens >= 0) & (tokens < vocabulary)


def listed(scores: Any, tokens: Any, rows: Any) -> tuple[Any, Any]:
    """Int["R K"] and Bool["R K"]: some tokens as columns of scores, and where they count: in `rows` Bool["R 1"].

    `tokens` are a tuple, or of each row its own, ["R K"], in which -1 is none.
    """
    xp, columns = arrays.of(scores), tokens
    if isinstance(tokens, tuple):
        columns = xp.asarray([list(tokens)], "int32", like=scores)
        columns = xp.broadcast_to(columns, (scores.shape[0], columns.shape[1]))
    return columns, in_vocabulary(columns, rows, scores.shape[-1])


def occurring(xp: Any, context: Context, vocabulary: int, ignored: Any = 0) -> Any:
    """Bool["R L"]: the context's tokens that count, without each row's first `ignored`, a number or Int["R 1"]."""
    places = xp.arange(context.tokens.shape[1], like=context.tokens)[None, :]
    counts = (places < context.lengths[:, None]) & (places >= ignored)
    return in_vocabulary(context.tokens, counts, vocabulary)


def last_tokens(xp: Any, context: Context, count: int) -> Any:
    """Int["R N"]: the last `count` tokens of each row; -1, which no token equals, where a row is shorter."""
    places = context.lengths[:, None] - count + xp.arange(count, like=context.tokens)[None, :]
    if not context.tokens.shape[1]:  # nobody may see what the rows begin with
        return xp.full(places.shape, -1, "int32", like=context.tokens)
    found = xp.take_along_axis(context.tokens, xp.maximum(places, 0))
    return xp.where(places < 0, -1, found)
