"""What may be said to the chat itself: one function a command, one line a command in COMMANDS."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fabula.cli.conversation import Conversation, load_conversation, save_conversation
from fabula.cli.generation_flags import read_setting
from fabula.errors import ArgumentError
from fabula.generation.settings.fields import FIELDS


@dataclass(frozen=True, slots=True)
class Session:
    """Where a chat stands."""

    model: str  # its source, as it was named
    conversation: Conversation
    settings: Mapping[str, Any] = field(default_factory=dict)  # fields of GenerationConfig that were set
    timings: Mapping[str, float] = field(default_factory=dict)  # of the last answer
    over: bool = False


def command(session: Session, line: str) -> tuple[Session, str]:
    """The session after a line that starts with a slash, and what to tell the person. Raises ArgumentError."""
    name, _, rest = line.strip().partition(" ")
    if name not in COMMANDS:
        raise ArgumentError(f"{name} must be one of {', '.join(COMMANDS)}. Say /help for what they do.")
    return COMMANDS[name].act(session, rest.strip())


def show_help(session: Session, rest: str) -> tuple[Session, str]:
    """What there is to say."""
    lines = [f"{name + ' ' + one.takes:<22} {one.meaning}" for name, one in COMMANDS.items()]
    return session, "\n".join([*lines, '"""                    begins and ends a text of several lines'])


def clear(session: Session, rest: str) -> tuple[Session, str]:
    """Forgets the turns, keeps the instruction."""
    return replace(session, conversation=Conversation(session.conversation.system)), "The conversation is empty."


def set_system(session: Session, rest: str) -> tuple[Session, str]:
    """Replaces the instruction before the conversation; without a text, removes it."""
    told = "The system prompt is set." if rest else "There is no system prompt."
    return replace(session, conversation=replace(session.conversation, system=rest or None)), told


def set_field(session: Session, rest: str) -> tuple[Session, str]:
    """Sets a field of GenerationConfig; without a value, forgets it."""
    name, _, text = rest.partition(" ")
    name = name.replace("-", "_")
    if name not in FIELDS:
        raise ArgumentError(
            f"/set must name a field of GenerationConfig, got {name!r}. `fabula chat --help` lists them."
        )
    others = {key: value for key, value in session.settings.items() if key != name}
    if not text:
        return replace(session, settings=others), f"{name} is as the model has it."
    try:
        value = read_setting(name, text.strip())
    except ValueError as error:
        raise ArgumentError(f"{name} must be {FIELDS[name].check.allowed}, got {text!r}.") from error
    if value is not None:
        FIELDS[name].check.require(name, value)
    return replace(session, settings={**others, name: value}), f"{name} = {value!r}"


def show(session: Session, rest: str) -> tuple[Session, str]:
    """Model, settings, instruction, length and the last answer's timings."""
    lines = [
        f"model     {session.model}",
        f"system    {session.conversation.system or '(none)'}",
        f"turns     {len(session.conversation.turns)}",
        *(f"set       {name} = {value!r}" for name, value in session.settings.items()),
    ]
    if session.timings:
        lines.append(f"timings   {json.dumps(dict(session.timings))}")
    return session, "\n".join(lines)


def save(session: Session, rest: str) -> tuple[Session, str]:
    """Writes the conversation to a file."""
    path = _path(rest, "/save")
    try:
        save_conversation(session.conversation, path)
    except OSError as error:
        raise ArgumentError(f"{path} must be a file that can be written: {error.strerror}.") from error
    return session, f"Saved to {path}."


def load(session: Session, rest: str) -> tuple[Session, str]:
    """Goes on with a saved conversation."""
    conversation = load_conversation(_path(rest, "/load"))
    return replace(session, conversation=conversation), f"{len(conversation.turns)} turns."


def leave(session: Session, rest: str) -> tuple[Session, str]:
    """Ends the chat."""
    return replace(session, over=True), ""


def _path(rest: str, name: str) -> Path:
    if not rest:
        raise ArgumentError(f"{name} must be given a file's name.")
    return Path(rest).expanduser()


@dataclass(frozen=True, slots=True)
class Command:
    """One thing that can be said."""

    act: Callable[[Session, str], tuple[Session, str]]
    takes: str
    meaning: str


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "/help": Command(show_help, "", "this list"),
        "/clear": Command(clear, "", "forget what was said, keep the system prompt"),
        "/system": Command(set_system, "[TEXT]", "set the system prompt, or remove it"),
        "/set": Command(set_field, "NAME [VALUE]", "set a field of GenerationConfig, or unset it"),
        "/show": Command(show, "", "model, settings, system prompt, timings"),
        "/save": Command(save, "FILE", "write the conversation as JSON"),
        "/load": Command(load, "FILE", "go on with a saved conversation"),
        "/exit": Command(leave, "", "leave (so does Ctrl-D)"),
        "/bye": Command(leave, "", "leave"),
    }
)
