"""Chats as prompts: the names, arguments and results of transformers' apply_chat_template."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fabula.errors import ArgumentError, NotSupportedError, TemplateError
from fabula.text.control_tokens import control_ids, encode_marked, mark
from fabula.text.encoding import BatchEncoding
from fabula.text.protocol import AnyTokenizer
from fabula.text.template_budget import SECONDS
from fabula.text.template_sandbox import render
from fabula.text.tool_schema import tool_schema

_REASONING = ("reasoning_content", "thinking", "reasoning")  # what messages call their reasoning; the first is read
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "


def apply_chat_template(
    tokenizer: AnyTokenizer,
    conversation: Any,
    tools: Sequence[dict[str, Any] | Callable[..., Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    *,
    chat_template: str | None = None,
    add_generation_prompt: bool = False,
    continue_final_message: bool | str = False,
    tokenize: bool = True,
    sanitize_control_tokens: bool = False,
    padding: bool | str = False,
    truncation: bool = False,
    max_length: int | None = None,
    return_tensors: str | None = None,
    return_dict: bool = True,
    return_assistant_tokens_mask: bool = False,
    tokenizer_kwargs: Mapping[str, Any] | None = None,
    seconds: float = SECONDS,
    **template_kwargs: Any,
) -> Any:
    """A conversation (or a list of them) as `input_ids` and `attention_mask`, as ids, or as text.

    `tokenize=False` gives text, `return_dict=False` ids alone. `template_kwargs` are variables of the template, as
    enable_thinking=False. With `sanitize_control_tokens`, control tokens in messages are text. Raises TemplateError if
    there is no template, or it fails or exceeds `seconds` of processor time, ArgumentError for arguments that exclude
    each other.
    """
    if return_assistant_tokens_mask:
        raise NotSupportedError("`return_assistant_tokens_mask` must be False: masks for training are not made here.")
    if continue_final_message and add_generation_prompt:
        raise ArgumentError(
            "`continue_final_message` and `add_generation_prompt` must not both be set: the first continues the last "
            "message, the second starts a new one."
        )
    if sanitize_control_tokens and not tokenize:
        raise ArgumentError("`sanitize_control_tokens` must be False for text: it is about ids. Use tokenize=True.")
    template = choose_template(tokenizer.chat_template, chat_template, tools)
    conversations, single = _conversations(conversation)
    given = _given(tools, documents, {**template_kwargs, "add_generation_prompt": add_generation_prompt})
    control = control_ids(tokenizer, template) if sanitize_control_tokens else None
    if control is not None:
        conversations, given = mark(tokenizer, control, conversations), mark(tokenizer, control, given)
    variables = {**tokenizer.special_tokens_map, **given}
    texts = [_render(template, chat, variables, continue_final_message, seconds) for chat in conversations]
    if not tokenize:
        return texts[0] if single else texts
    lengths = {"padding": padding, "truncation": truncation, "max_length": max_length}
    options = {**lengths, "return_tensors": return_tensors, **(tokenizer_kwargs or {})}
    encoding = _encode(tokenizer, texts, single, control, options)
    return encoding if return_dict else encoding["input_ids"]


def _given(tools: Any, documents: Any, variables: dict[str, Any]) -> dict[str, Any]:
    """The template's variables but for the messages, as plain data."""
    schemas = None if tools is None else [_tool(tool) for tool in tools]
    texts = None if documents is None else [_document(document) for document in documents]
    return _plain({**variables, "tools": schemas, "documents": texts})


def _encode(
    tokenizer: AnyTokenizer, texts: list[str], single: bool, control: frozenset[int] | None, options: dict[str, Any]
) -> BatchEncoding:
    """The texts' ids; the template itself writes the special tokens around them."""
    if control is None:
        return tokenizer(texts[0] if single else texts, add_special_tokens=False, **options)
    rows = [encode_marked(tokenizer, control, text) for text in texts]
    return _finished(tokenizer, rows, single, options)


def _finished(tokenizer: AnyTokenizer, rows: list[list[int]], single: bool, options: dict[str, Any]) -> BatchEncoding:
    """Rows of ids, cut and padded as a call of the tokenizer does it."""
    truncation, max_length = options.pop("truncation"), options["max_length"]
    if truncation and max_length is not None:
        right = tokenizer.truncation_side == "right"
        rows = [row[:max_length] if right else row[-max_length:] for row in rows]
    return tokenizer.pad({"input_ids": rows[0] if single and not options["return_tensors"] else rows}, **options)


def choose_template(own: str | dict[str, str] | None, asked: str | None, tools: Any = None) -> str:
    """The template to use: the one asked for, by text or name, or the tokenizer's own."""
    if isinstance(own, dict):
        if asked is not None:
            return own.get(asked, asked)
        name = "tool_use" if tools is not None and "tool_use" in own else "default"
        if name not in own:
            raise TemplateError(
                f"`chat_template` must be given, as the tokenizer has several and no default. Known: {sorted(own)}."
            )
        return own[name]
    template = asked if asked is not None else own
    if template is None:
        raise TemplateError(
            "The tokenizer has no chat template: its model was not made for chats, or its files lack one. Set "
            "tokenizer.chat_template, pass chat_template=..., or give the prompt as text."
        )
    return template


def _conversations(conversation: Any) -> tuple[list[list[dict[str, Any]]], bool]:
    """Each conversation's messages as plain data without null fields, and whether a single one was given."""
    conversation = getattr(conversation, "messages", conversation)
    if not isinstance(conversation, list | tuple):
        raise ArgumentError(
            f"`conversation` must be a list of messages or a list of such lists, got {type(conversation).__name__}. "
            'Use [{"role": "user", "content": "..."}].'
        )
    if not conversation:
        raise ArgumentError("`conversation` must hold at least one message, got none.")
    single = not (isinstance(conversation[0], list | tuple) or hasattr(conversation[0], "messages"))
    chats: list[Any] = [conversation] if single else [getattr(chat, "messages", chat) for chat in conversation]
    return [[_message(message, place) for place, message in enumerate(chat)] for chat in chats], single


def _message(message: Any, place: int) -> dict[str, Any]:
    fields = _plain(message)
    if not isinstance(fields, dict):
        raise ArgumentError(
            f"`conversation[{place}]` must be an object with role and content, got {type(message).__name__}."
        )
    fields = {name: value for name, value in fields.items() if value is not None}
    reasoning = next((fields[name] for name in _REASONING if name in fields), None)
    if reasoning is None:
        return fields
    return {"thinking": reasoning, **fields, "reasoning_content": reasoning}


def _tool(tool: Any) -> Any:
    if isinstance(tool, Mapping):
        return tool
    if callable(tool) and hasattr(tool, "__code__" if not hasattr(tool, "__func__") else "__func__"):
        return tool_schema(tool)
    raise ArgumentError(f"`tools` must be JSON schemas or functions, got {type(tool).__name__}.")


def _document(document: Any) -> Any:
    if not isinstance(document, Mapping):
        raise ArgumentError(f"`documents` must be objects with title and text, got {type(document).__name__}.")
    return document


def _plain(value: Any) -> Any:
    """`value` in JSON's types only, copied: a template gets no object whose methods could do anything."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value) if type(value) in (list, tuple) else list(map(_plain, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if callable(getattr(value, "model_dump", None)):  # pydantic
        return _plain(value.model_dump())
    for kind in (str, int, float):
        if isinstance(value, kind):
            return getattr(kind, f"__{kind.__name__}__")(value)
    if callable(getattr(value, "item", None)) and getattr(value, "shape", None) == ():  # a framework's number
        return _plain(value.item())
    return f"<{type(value).__name__}>"


def _characters(value: Any) -> int:
    """How many characters of text `value` holds."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_characters(key) + _characters(item) for key, item in value.items())
    return sum(map(_characters, value)) if isinstance(value, list | tuple) else 8


def _render(
    template: str, chat: list[dict[str, Any]], variables: dict[str, Any], continued: bool | str, seconds: float
) -> str:
    """One conversation's text, cut after the last message's content if that is to be continued."""
    if continued:
        chat, final = _tagged(template, chat, "content" if continued is True else continued)
    variables = {**variables, "messages": chat}
    text = render(template, variables, _characters(variables), seconds)
    return _cut(text, final) if continued else text


def _tagged(template: str, chat: list[dict[str, Any]], field: str) -> tuple[list[dict[str, Any]], str]:
    """The chat with a mark at the end of the last message's text, and that text."""
    last = dict(chat[-1]) if chat else {}
    final = last.get(field)
    if final is None:
        raise ArgumentError(f"`continue_final_message` must find `{field}` in the last message, got {sorted(last)}.")
    fields = [name for name in _REASONING if last.get(name) == final] if field in _REASONING else [field]
    if not any(name in template for name in fields):
        raise ArgumentError(f"`continue_final_message` must name a field that the template reads, got {field!r}.")
    if isinstance(final, list | tuple):
        place = next((place for place in reversed(range(len(final))) if "text" in final[place]), None)
        if place is None:
            raise ArgumentError("`continue_final_message` must find text in the last message, got none.")
        blocks = [dict(block) for block in final]
        text = blocks[place]["text"]
        blocks[place]["text"] = text + _TAG
        return [*chat[:-1], last | {field: blocks}], text
    return [*chat[:-1], last | dict.fromkeys(fields, final + _TAG)], final


def _cut(text: str, final: str) -> str:
    """`text` up to the mark; where the template trimmed the message, without the spaces before it."""
    if final.strip() not in text or _TAG.strip() not in text:
        raise TemplateError(
            "The chat template must keep the last message's text to continue it, and removed part of it. "
            "Use add_generation_prompt=True instead."
        )
    place = text.rindex(_TAG.strip())
    return text[:place] if text[place : place + len(_TAG)] == _TAG else text[:place].rstrip()
