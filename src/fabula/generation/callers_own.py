"""The caller's own processors, criteria and functions, given arrays of the framework that the caller speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.decoding.recipe import Ends
from fabula.errors import ArgumentError
from fabula.processors.processor import LogitsProcessor, apply


class AtTheDoor(LogitsProcessor):
    """A processor that sees ids and scores in the framework of `like`, whatever the model computes with."""

    def __init__(self, processor: Any, like: Any) -> None:
        self.processor = processor
        self.like = like

    def process(self, scores: Any, context: Context) -> Any:
        here, there = arrays.of(scores), arrays.of(self.like)
        if here is there:
            return self._answer(scores, context)
        seen = there.asarray(here.to_host(scores).copy(), "float32", like=self.like)
        answer = self._answer(seen, in_framework_of(self.like, context))
        return here.asarray(arrays.of(answer).to_host(answer), "float32", like=scores)

    def _answer(self, scores: Any, context: Context) -> Any:
        """What the processor returns. Raises ArgumentError unless it has the shape of the scores."""
        answer = apply(self.processor, scores, context)
        if tuple(answer.shape) != tuple(scores.shape):
            name = getattr(self.processor, "__name__", type(self.processor).__name__)
            raise ArgumentError(
                f"`logits_processor` {name} must return scores of the shape {list(scores.shape)} that it was given, "
                f"got {list(answer.shape)}. Put -inf where a token must not be chosen."
            )
        return answer


def in_framework_of(like: Any, context: Context) -> Context:
    """The context's arrays where `like` is."""
    there = arrays.of(like)
    parts = (context.tokens, context.lengths, context.prompt_lengths)
    tokens, lengths, prompts = (there.asarray(arrays.of(x).to_host(x), "int32", like=like) for x in parts)
    return Context(tokens, lengths, prompts, padding=context.padding)


@dataclass(frozen=True, slots=True)
class CallersOwn:
    """What a call brings along to be asked at each step."""

    processors: tuple[Any, ...] = ()
    criteria: tuple[Any, ...] = ()
    prefix_allowed_tokens_fn: Callable[[int, Any], Any] | None = None
    like: Any = None  # an array of the caller's framework
    vocabulary: int = 0  # how many ids the model has

    @classmethod
    def taken_from(cls, call: dict[str, Any]) -> CallersOwn:
        """Takes the arguments out of the call. Raises ArgumentError for what cannot be called."""
        processors = _callables("logits_processor", call.pop("logits_processor", None))
        criteria = _callables("stopping_criteria", call.pop("stopping_criteria", None))
        allowed = call.pop("prefix_allowed_tokens_fn", None)
        if allowed is not None and not callable(allowed):
            raise ArgumentError(f"`prefix_allowed_tokens_fn` must be a function of (batch_id, ids), got {allowed!r}.")
        return cls(processors, criteria, allowed)

    def seen_as(self, given: Any, vocabulary: int) -> CallersOwn:
        """The same with arrays of the framework of the call's inputs, NumPy's for lists, for a model of so many ids."""
        like = np.zeros(0, np.int64) if given is None else given
        own = tuple(AtTheDoor(one, like) for one in self.processors)
        return replace(self, like=like, vocabulary=vocabulary, processors=own)

    @property
    def ends(self) -> tuple[Ends, ...]:
        """The criteria, as the engine asks them."""
        return tuple(partial(_ends, criterion, self.like) for criterion in self.criteria)

    @property
    def kinds(self) -> frozenset[str]:
        """The class names of the criteria: each takes the place of the call's own of that name."""
        return frozenset(type(criterion).__name__ for criterion in self.criteria)

    @property
    def longest(self) -> int | None:
        """The length at which a MaxLengthCriteria of the caller's ends rows, in the place of the call's own."""
        lengths = [one.max_length for one in self.criteria if type(one).__name__ == "MaxLengthCriteria"]
        return int(min(lengths)) if lengths else None

    def allowed_for(self, prompt: int) -> Callable[[int, Any], Any] | None:
        """`prefix_allowed_tokens_fn` with the prompt's number in the call bound."""
        if self.prefix_allowed_tokens_fn is None:
            return None
        return partial(_allowed, self, prompt)


def _ends(criterion: Any, like: Any, tokens: np.ndarray, prompt_length: int) -> bool:
    """Whether a criterion ends the row; it sees ids [1, L]."""
    answer = criterion(arrays.of(like).asarray(tokens[None].astype(np.int64), "int64", like=like), None)
    if answer is None:
        raise ArgumentError("`stopping_criteria` must return True, False or an array of them, got None. Return one.")
    return answer if isinstance(answer, bool) else bool(arrays.of(answer).to_host(answer).all())


def _allowed(own: CallersOwn, prompt: int, row: int, tokens: Any) -> Any:
    """The ids that `prefix_allowed_tokens_fn` lists after a row's tokens. Raises ArgumentError for others than ids."""
    assert own.prefix_allowed_tokens_fn is not None
    seen = arrays.of(tokens).to_host(tokens).astype(np.int64)
    answer = own.prefix_allowed_tokens_fn(prompt, arrays.of(own.like).asarray(seen, "int64", like=own.like))
    ids = np.asarray(answer if isinstance(answer, (list, tuple)) else list(answer))
    if ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= own.vocabulary):
        raise ArgumentError(
            f"`prefix_allowed_tokens_fn` must list ids in [0, {own.vocabulary}), got {ids.tolist()[:8]} for batch "
            f"{prompt}. Take them from this model's tokenizer."
        )
    return answer


def _callables(name: str, value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    listed = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    for one in listed:
        if not callable(one):
            raise ArgumentError(f"`{name}` must be a list of callables (input_ids, scores), got {type(one).__name__}.")
    return listed
