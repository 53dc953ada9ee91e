"""The framework that a pipeline's caller speaks, though text goes in and out: torch where it is loaded, or NumPy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from fabula import arrays
from fabula.generation.callers_own import CallersOwn
from fabula.generation.seeds import seeds_for


def callers_array() -> Any:
    """An empty array of that framework, on the host."""
    torch = sys.modules.get("torch")
    return np.zeros(0, np.int64) if torch is None else torch.zeros(0, dtype=torch.int64)


def drawn_seed() -> int:
    """A seed from the generator that the caller knows how to seed, which it advances."""
    return seeds_for(None, 1, 1, callers_array())[0][0]


def in_callers_framework(arguments: Mapping[str, Any], vocabulary: int) -> dict[str, Any]:
    """The arguments of generate() with the caller's own functions given arrays of their framework."""
    call = dict(arguments)
    own = CallersOwn.taken_from(call).seen_as(callers_array(), vocabulary)
    if own.processors:
        call["logits_processor"] = list(own.processors)
    if own.criteria:
        call["stopping_criteria"] = [partial(_criterion, one, own.like) for one in own.criteria]
    if own.prefix_allowed_tokens_fn is not None:
        call["prefix_allowed_tokens_fn"] = partial(_allowed, own.prefix_allowed_tokens_fn, own.like)
    return call


def _criterion(criterion: Callable[[Any, Any], Any], like: Any, ids: Any, scores: Any) -> Any:
    """What a criterion says of ids [1, L]."""
    answer = criterion(_converted(ids, like), scores)
    return arrays.of(answer).to_host(answer) if hasattr(answer, "shape") else answer


def _allowed(function: Callable[[int, Any], Any], like: Any, prompt: int, ids: Any) -> Any:
    """What a prefix_allowed_tokens_fn says of ids [L]."""
    return function(prompt, _converted(ids, like))


def _converted(ids: Any, like: Any) -> Any:
    return arrays.of(like).asarray(arrays.of(ids).to_host(ids).astype(np.int64), "int64", like=like)
