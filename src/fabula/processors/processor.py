"""What a logits processor is: scores in, scores out; and the list that applies several in turn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from fabula import arrays
from fabula.arrays.ragged import rectangle
from fabula.context import Context
from fabula.errors import ArgumentError, NotSupportedError

__all__ = ["LogitsProcessor", "LogitsProcessorList", "apply", "column"]


class LogitsProcessor:
    """Override `process` (ragged rows, any framework) or `__call__` (the signature of transformers): both then work.

    Neither changes its arguments; the scores are float32. A processor that serves rows with different numbers in one
    pass says which attributes these are, in `numbers`, and gives a `stack_key`.
    """

    numbers: ClassVar[Mapping[str, float]] = {}  # attribute -> the value with which a row's scores stay as they are
    acts_until: int | None = None  # the length beyond which a row's scores stay as they are; None: there is none
    looks_through: bool = False  # whether a row's turn by itself looks through its lists for what is no token
    reads_host: bool = False  # whether it looks at numbers on the host, which no compiled loop can do

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Whichever of the two a class overrides, the other follows it."""
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "process" in own and "__call__" not in own:
            cls.__call__ = _on_whole_rows(own["process"])  # type: ignore[method-assign, assignment]
        elif "__call__" in own and "process" not in own:
            cls.process = _on_rectangle(own["__call__"])  # type: ignore[method-assign, assignment]
        if "stack_key" not in own:  # what a subclass adds may differ from row to row
            cls.stack_key = LogitsProcessor.stack_key  # type: ignore[method-assign]
        if "listed" not in own:
            cls.listed = LogitsProcessor.listed  # type: ignore[method-assign]

    def process(self, scores: Any, context: Context) -> Any:
        """Float["R V"]: the scores of the next token after each of the R rows."""
        raise NotSupportedError(f"`{type(self).__name__}` must override `process` or `__call__`, got neither.")

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Float["R V"], of rows that are all L long: input_ids Int["R L"], scores Float["R V"]."""
        raise NotSupportedError(f"`{type(self).__name__}` must override `process` or `__call__`, got neither.")

    def stack_key(self) -> Hashable | None:
        """What processors must share to become one over their rows; None: this one runs on its own rows only."""
        return None

    def list_key(self) -> Hashable:
        """What processors must share for their lists to be those of one."""
        return ()

    @classmethod
    def listed(cls, members: Sequence[Any]) -> tuple[LogitsProcessor, Mapping[str, np.ndarray]] | None:
        """Those of R rows, of one `list_key`, as one that takes its lists as arrays, and these, by attribute.

        A member that is None leaves its row's scores as they are. The arrays ["R ..."] have rounded sizes, so that a
        compiled loop serves other lists too. None: what it was made with is part of a loop, but for its numbers.
        """
        return None


class LogitsProcessorList(list):  # a plain list of processors or callables, as in transformers
    """Processors applied in turn."""

    def process(self, scores: Any, context: Context) -> Any:
        """Float["R V"] after every processor of the list."""
        for processor in self:
            scores = apply(processor, scores, context)
        return scores

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """As `process`, on rectangular rows; a callable of more than two parameters gets the rest from kwargs."""
        for processor in self:
            scores = processor(input_ids, scores, **_wanted(processor, kwargs))
        return scores


def apply(processor: Any, scores: Any, context: Context) -> Any:
    """Float["R V"] after one processor, ours or any callable with the signature of transformers."""
    if isinstance(processor, (LogitsProcessor, LogitsProcessorList)):
        return processor.process(scores, context)
    return called(processor, scores, context)


def _on_whole_rows(process: Callable[[Any, Any, Context], Any]) -> Callable[[Any, Any, Any], Any]:
    """A `__call__` that does what a class's `process` does."""

    def __call__(self: LogitsProcessor, input_ids: Any, scores: Any) -> Any:
        return process(self, scores, whole_rows(input_ids))

    return __call__


def _on_rectangle(call: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Context], Any]:
    """A `process` that does what a class's `__call__` does."""

    def process(self: LogitsProcessor, scores: Any, context: Context) -> Any:
        return called(partial(call, self), scores, context)

    return process


def called(call: Callable[[Any, Any], Any], scores: Any, context: Context) -> Any:
    """Float32["R V"]: what a callable with the signature of transformers makes of the scores."""
    processed = call(rectangle(context.tokens, context.lengths, context.padding), scores)
    return arrays.of(processed).astype(processed, "float32")


def column(xp: Any, value: Any, dtype: str, like: Any) -> Any:
    """A number, or an array of scores' framework, as it is; NumPy's ["R 1"] as an array where `like` is."""
    return xp.asarray(value, dtype, like=like) if isinstance(value, np.ndarray) else value


def whole_rows(input_ids: Any) -> Context:
    """The context of rectangular rows, of which all columns count as prompt."""
    xp = arrays.of(input_ids)
    tokens = xp.astype(input_ids, "int32")
    lengths = xp.full((tokens.shape[0],), tokens.shape[1], "int32", like=tokens)
    return Context(tokens=tokens, lengths=lengths, prompt_lengths=lengths)


def _wanted(processor: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of kwargs that a callable asks for beyond its first two parameters."""
    names = list(inspect.signature(processor).parameters)[2:]
    absent = [name for name in names if name not in kwargs]
    if absent:
        raise ArgumentError(f"`{absent[0]}` must be passed for {type(processor).__name__}, got {sorted(kwargs)}.")
    return {name: kwargs[name] for name in names}
