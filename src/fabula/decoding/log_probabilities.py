"""Log-probabilities: the log-softmax of the model's raw logits, before any processor."""

from __future__ import annotations

from typing import Any

from fabula import arrays

__all__ = ["log_probabilities", "top_log_probabilities"]


def log_probabilities(logits: Any, tokens: Any) -> Any:
    """Float["R"]: those of one token a row, Int["R"], under logits Float["R V"]."""
    xp = arrays.of(logits)
    logits = xp.astype(logits, "float32")
    return xp.take_along_axis(logits, tokens[:, None])[:, 0] - xp.logsumexp(logits)


def top_log_probabilities(logits: Any, count: int) -> tuple[Any, Any]:
    """The `count` likeliest tokens of each row, falling, Int["R N"], and their log-probabilities, Float["R N"]."""
    xp = arrays.of(logits)
    logits = xp.astype(logits, "float32")
    values, tokens = xp.top_k(logits, min(count, logits.shape[-1]))
    return tokens, values - xp.logsumexp(logits, keepdims=True)
