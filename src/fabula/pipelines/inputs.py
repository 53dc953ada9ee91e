"""What a pipeline is given: a text, a chat, or several of them, at once or one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import GeneratorType
from typing import Any

from fabula.errors import ArgumentError

_KINDS = "a text, a chat (a list of messages with role and content), a list of either, or an iterable of either"


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation."""

    messages: Sequence[Mapping[str, Any]]

    @property
    def ends_with_the_assistant(self) -> bool:
        """Whether the last message is the model's own, to be continued."""
        return self.messages[-1]["role"] == "assistant"


@dataclass(frozen=True, slots=True)
class Inputs:
    """The prompts of a call, and in which form the answers go back."""

    prompts: Iterable[str | Chat]
    single: bool = False  # one prompt: its answer goes back alone
    lazy: bool = False  # answers are made as they are asked for


def read_inputs(given: Any) -> Inputs:
    """The prompts of a call. Raises ArgumentError for what is neither text nor chat."""
    if isinstance(given, str):
        return Inputs([given], single=True)
    if isinstance(given, (list, tuple)):
        if given and is_message(given[0]):
            return Inputs([_chat(given)], single=True)
        return Inputs([_prompt(one) for one in given])
    if isinstance(given, GeneratorType):
        return _from_generator(given)
    if isinstance(given, Mapping) or not (hasattr(given, "__iter__") or hasattr(given, "__getitem__")):
        raise ArgumentError(f"`text_inputs` must be {_KINDS}, got {type(given).__name__}.")
    return Inputs(map(_prompt, _elements(given)), lazy=True)


def is_message(value: Any) -> bool:
    """Whether it is one message of a chat."""
    return isinstance(value, Mapping) and "role" in value and "content" in value


def _from_generator(given: Iterator[Any]) -> Inputs:
    """Prompts as they come; a generator of messages is one chat."""
    try:
        first = next(given)
    except StopIteration:
        return Inputs([])
    if is_message(first):
        return Inputs([_chat([first, *given])], single=True)
    return Inputs(map(_prompt, chain([first], given)), lazy=True)


def _elements(dataset: Any) -> Iterable[Any]:
    """A dataset's entries; many know their length and their entries by index, and no other way."""
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        return (dataset[index] for index in range(len(dataset)))
    return iter(dataset)


def _prompt(value: Any) -> str | Chat:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and value and is_message(value[0]):
        return _chat(value)
    raise ArgumentError(f"`text_inputs` must be {_KINDS}, got {type(value).__name__} among them: {value!r:.80}.")


def _chat(messages: Sequence[Any]) -> Chat:
    for message in messages:
        if not is_message(message):
            raise ArgumentError(
                f"`text_inputs` must have a 'role' and a 'content' in every message of a chat, got {message!r:.80}."
            )
    return Chat(messages)
