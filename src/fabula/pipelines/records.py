"""What goes back to a pipeline's caller: a record for each sequence that the model made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fabula.pipelines.inputs import Chat
from fabula.pipelines.settings import ReturnType, Settings


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt on its way to the model."""

    given: str | Chat
    ids: list[int]  # without padding; empty for an empty text


def record_of(prompt: Encoded, sequence: list[int], asked: Settings, tokenizer: Any) -> dict[str, Any]:
    """What one sequence, prompt and new ids, becomes."""
    if asked.return_type is ReturnType.TENSORS:
        return {"generated_token_ids": sequence}
    reads = getattr(tokenizer, "response_template", None) is not None
    options = {
        "skip_special_tokens": asked.special_tokens_skipped and not reads,
        "clean_up_tokenization_spaces": asked.clean_up_tokenization_spaces,
    }
    text = tokenizer.decode(sequence[len(prompt.ids) :], **options)
    if asked.return_type is ReturnType.NEW_TEXT:
        return {"generated_text": text}
    if not isinstance(prompt.given, Chat):
        return {"generated_text": prompt.given + text}
    if continues(prompt.given, asked):
        return {"generated_text": _continued(prompt.given, text)}
    answer: Any = {"role": "assistant", "content": text}
    if reads:
        before = tokenizer.decode(sequence[: len(prompt.ids)], **options)
        answer = tokenizer.parse_response(text, prefix=before, tools=asked.tools)
    return {"generated_text": [*prompt.given.messages, answer]}


def continues(chat: Chat, asked: Settings) -> bool:
    """Whether the last message goes on, and no new one begins."""
    given = asked.continue_final_message
    return chat.ends_with_the_assistant if given is None else given


def _continued(chat: Chat, text: str) -> list[Any]:
    """The messages, the last with more text."""
    *before, last = chat.messages
    content = last["content"]
    going_on = content + text if isinstance(content, str) else [*content, {"type": "text", "text": text}]
    return [*before, {"role": last["role"], "content": going_on}]


def by_row(output: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What an output object holds a row, as lists of numbers: name -> rows."""
    rows = len(output["sequences"])
    found: dict[str, list[Any]] = {}
    for name, value in output.items():
        if name == "sequences":
            continue
        if isinstance(value, tuple) and value and len(value[0]) == rows and hasattr(value[0], "tolist"):
            found[name] = [[step[row].tolist() for step in value] for row in range(rows)]
        elif hasattr(value, "tolist") and value.ndim and len(value) == rows:
            found[name] = value.tolist()
    return found
