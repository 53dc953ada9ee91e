"""When a row ends: stopping criteria, per row, with the names and both ways of calling them that transformers has."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, Protocol

import numpy as np

from fabula import arrays
from fabula.arrays.ragged import rectangle
from fabula.context import Context
from fabula.errors import ArgumentError, NotSupportedError
from fabula.text.stop_strings import StopStrings

__all__ = [
    "ConfidenceCriteria",
    "EosTokenCriteria",
    "MaxLengthCriteria",
    "MaxTimeCriteria",
    "StopStringCriteria",
    "StoppingCriteria",
    "StoppingCriteriaList",
    "ended",
    "validate_stopping_criteria",
]


class Decoder(Protocol):
    """All that stop strings need of a tokenizer."""

    def decode(self, ids: Any, /, skip_special_tokens: bool = ...) -> str: ...


def called(criterion: Callable[[Any, Any], Any], context: Context, scores: Sequence[Any] | None) -> Any:
    """Bool["R"] of a callable with the signature of transformers."""
    return per_row(criterion(rectangle(context.tokens, context.lengths, context.padding), scores), context.lengths)


def per_row(answer: Any, like: Any) -> Any:
    """A bool, or one a row, as Bool["R"] where `like` ["R"] is."""
    xp = arrays.of(like)
    if isinstance(answer, (bool, np.bool_)):
        return xp.full(tuple(like.shape), bool(answer), "bool", like=like)
    return xp.broadcast_to(xp.reshape(xp.asarray(answer, "bool", like=like), (-1,)), tuple(like.shape))


def _on_whole_rows(done: Callable[..., Any]) -> Callable[..., Any]:
    """A `__call__` that does what a class's `done` does."""

    known = inspect.signature(done).parameters

    def __call__(self: StoppingCriteria, input_ids: Any, scores: Any = None, **kwargs: Any) -> Any:
        xp = arrays.of(input_ids)
        lengths = xp.full((input_ids.shape[0],), input_ids.shape[1], "int32", like=input_ids)
        wanted = {name: value for name, value in kwargs.items() if name in known}  # a list passes on all it is given
        return done(self, Context(xp.astype(input_ids, "int32"), lengths, lengths), scores, **wanted)

    return __call__


def _on_rectangle(call: Callable[..., Any]) -> Callable[..., Any]:
    """A `done` that does what a class's `__call__` does."""

    def done(self: StoppingCriteria, context: Context, scores: Any = None) -> Any:
        return called(lambda input_ids, scores: call(self, input_ids, scores), context, scores)

    return done


class StoppingCriteria:
    """Override `done` (ragged rows, any framework) or `__call__` (the signature of transformers): both then work.

    `scores` are what the rows' tokens were chosen from, one array a step, where the caller asked for them, else None.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Whichever of the two a class overrides, the other follows it."""
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "done" in own and "__call__" not in own:
            cls.__call__ = _on_whole_rows(own["done"])  # type: ignore[method-assign]
        elif "__call__" in own and "done" not in own:
            cls.done = _on_rectangle(own["__call__"])  # type: ignore[method-assign]

    def done(self, context: Context, scores: Sequence[Any] | None = None) -> Any:
        """Bool["R"]: the rows that end with their last token."""
        raise NotSupportedError(f"`{type(self).__name__}` must override `done` or `__call__`, got neither.")

    def __call__(self, input_ids: Any, scores: Sequence[Any] | None = None, **kwargs: Any) -> Any:
        """Bool["R"] for rows that are all L long, input_ids Int["R L"]."""
        raise NotSupportedError(f"`{type(self).__name__}` must override `done` or `__call__`, got neither.")


class MaxLengthCriteria(StoppingCriteria):
    """Ends a row that is max_length long, prompt included."""

    def __init__(self, max_length: int, max_position_embeddings: int | None = None) -> None:
        self.max_length = max_length
        self.max_position_embeddings = max_position_embeddings

    def done(self, context: Context, scores: Sequence[Any] | None = None) -> Any:
        over = context.lengths >= self.max_length
        if self.max_position_embeddings is not None:
            self._warn_beyond(arrays.of(over).to_host(context.lengths))
        return over

    def _warn_beyond(self, lengths: np.ndarray) -> None:
        limit = self.max_position_embeddings
        if ((lengths > limit) & (lengths < self.max_length)).any():
            warnings.warn(f"A row is longer than the {limit} positions that the model was trained on.", stacklevel=3)


class EosTokenCriteria(StoppingCriteria):
    """Ends a row whose last token, or one of its last `new_token_length`, is an end token."""

    def __init__(self, eos_token_id: Any) -> None:
        listed = arrays.listed(eos_token_id)
        self.eos_token_id = tuple(listed) if isinstance(listed, (list, tuple, set, frozenset)) else (listed,)
        if not all(isinstance(token, int) for token in self.eos_token_id):
            raise ArgumentError(f"`eos_token_id` must be one or several token ids, got {eos_token_id!r}.")

    def done(self, context: Context, scores: Sequence[Any] | None = None, new_token_length: int = 1) -> Any:
        xp = arrays.of(context.tokens)
        places = context.lengths[:, None] - new_token_length + xp.arange(new_token_length, like=context.tokens)[None, :]
        last = xp.take_along_axis(context.tokens, xp.maximum(places, 0))[:, :, None]
        ends = xp.asarray(np.array(self.eos_token_id, np.int32)[None, None, :], "int32", like=context.tokens)
        return xp.any(xp.any(last == ends) & (places >= 0))


class MaxTimeCriteria(StoppingCriteria):
    """Ends every row once max_time seconds have passed, since its making or since `initial_timestamp` (time.time())."""

    def __init__(self, max_time: float, initial_timestamp: float | None = None) -> None:
        self.max_time = max_time
        self.initial_timestamp = time.time() if initial_timestamp is None else initial_timestamp

    def done(self, context: Context, scores: Sequence[Any] | None = None) -> Any:
        return per_row(time.time() - self.initial_timestamp > self.max_time, context.lengths)


class StopStringCriteria(StoppingCriteria):
    """Ends a row whose last token completes a stop string; what the token holds beyond it stays."""

    def __init__(self, tokenizer: Decoder, stop_strings: str | Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.stop_strings = StopStrings(stop_strings).stops
        longest = max(len(stop.encode()) for stop in self.stop_strings)
        self.window = longest + 8  # tokens: at worst one a byte, and a few before, as decoding may treat a start apart

    def done(self, context: Context, scores: Sequence[Any] | None = None) -> Any:
        xp = arrays.of(context.tokens)
        tokens, lengths = xp.to_host(context.tokens), xp.to_host(context.lengths)
        ends = [
            self._completes(row[max(0, length - self.window) : length].tolist())
            for row, length in zip(tokens, lengths, strict=True)
        ]
        return xp.asarray(np.array(ends, dtype=bool), "bool", like=context.tokens)

    def _completes(self, tokens: list[int]) -> bool:
        """Whether a stop string ends in the text of the last token."""
        text = self.tokenizer.decode(tokens, skip_special_tokens=False)
        before = self.tokenizer.decode(tokens[:-1], skip_special_tokens=False).rstrip("\N{REPLACEMENT CHARACTER}")
        return any(text.find(stop, max(0, len(before) - len(stop) + 1)) >= 0 for stop in self.stop_strings)


class ConfidenceCriteria(StoppingCriteria):
    """Ends a row whose last token was less probable than a threshold: a drafter's, which then stops drafting."""

    def __init__(self, assistant_confidence_threshold: float) -> None:
        self.assistant_confidence_threshold = assistant_confidence_threshold

    def done(self, context: Context, scores: Sequence[Any] | None = None) -> Any:
        if not scores:
            raise ArgumentError("`scores` must hold one array a step, got none. Generate with output_scores=True.")
        xp = arrays.of(scores[-1])
        last = xp.take_along_axis(context.tokens, context.lengths[:, None] - 1)
        confidence = xp.take_along_axis(xp.softmax(scores[-1]), last)[:, 0]
        return confidence < self.assistant_confidence_threshold


class StoppingCriteriaList(list):  # a plain list of criteria or callables, as in transformers
    """Criteria of which one is enough."""

    def done(self, context: Context, scores: Sequence[Any] | None = None) -> Any:
        """Bool["R"]: the rows that any criterion ends."""
        result = per_row(False, context.lengths)
        for criterion in self:
            result = result | ended(criterion, context, scores)
        return result

    def __call__(self, input_ids: Any, scores: Sequence[Any] | None = None, **kwargs: Any) -> Any:
        """As `done`, for rectangular rows."""
        result = per_row(False, input_ids[:, 0])
        for criterion in self:
            result = result | per_row(criterion(input_ids, scores, **kwargs), input_ids[:, 0])
        return result

    @property
    def max_length(self) -> int | None:
        """What the first MaxLengthCriteria among them allows."""
        return next((criterion.max_length for criterion in self if isinstance(criterion, MaxLengthCriteria)), None)


def validate_stopping_criteria(stopping_criteria: StoppingCriteriaList, max_length: int) -> StoppingCriteriaList:
    """A copy that ends at `max_length` if it had no maximal length; warns where it has another one."""
    criteria = deepcopy(stopping_criteria)
    if criteria.max_length is None:
        criteria.append(MaxLengthCriteria(max_length))
    elif criteria.max_length != max_length:
        warnings.warn(
            f"`max_length` is {max_length}, but the criteria end rows at {criteria.max_length}. Give both the same.",
            stacklevel=2,
        )
    return criteria


def ended(criterion: Any, context: Context, scores: Sequence[Any] | None = None) -> Any:
    """Bool["R"] of one criterion: ours, or any callable with the signature of transformers."""
    if isinstance(criterion, (StoppingCriteria, StoppingCriteriaList)):
        return criterion.done(context, scores)
    return called(criterion, context, scores)
