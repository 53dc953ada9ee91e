"""`fabula chat`: many turns with a model; Ctrl-C stops an answer, not the program."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fabula.cli.chat_commands import Session, command
from fabula.cli.conversation import Conversation, prompt_ids
from fabula.cli.failures import line_of
from fabula.cli.generate import stops_of
from fabula.cli.generation_flags import add_generation_flags, given_settings
from fabula.cli.prompt_input import read_file
from fabula.cli.source_flags import add_model_flags, load_model
from fabula.cli.terminal import note
from fabula.cli.turns import Turns
from fabula.cli.typewriter import Typewriter
from fabula.errors import ContextLengthError, FabulaError
from fabula.text.detokenizer import Detokenizer

GREETING = "{model}. /help lists what you can say beside questions; Ctrl-C stops an answer, /bye leaves."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.usage = "%(prog)s [options]"
    parser.add_argument("--system", metavar="TEXT", help="the instruction before the conversation")
    parser.add_argument("--system-file", metavar="FILE", help="likewise, from a file")
    add_model_flags(parser)
    add_generation_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Takes turns until the person leaves or the input ends."""
    system = read_file(arguments.system_file, "system prompt") if arguments.system_file else arguments.system
    model = load_model(arguments)
    session = Session(model.name_or_path, Conversation(system), given_settings(arguments))
    turns = Turns()
    if turns.interactive:
        note(GREETING.format(model=session.model))
    while not session.over and (turn := turns.next()) is not None:
        session = take(model, session, turn, turns)


def take(model: Any, session: Session, turn: str, turns: Turns) -> Session:
    """The session after one turn; an error is told to a person, and ends a pipe."""
    try:
        if turn.startswith("/"):
            session, told = command(session, turn)
            if told:
                note(told)
            return session
        return answer(model, session, turn, turns)
    except FabulaError as error:
        if not turns.interactive:
            raise
        note(line_of(error))
        return session


def answer(model: Any, session: Session, question: str, turns: Turns) -> Session:
    """Streams the answer; what was said before Ctrl-C counts as said."""
    asked = session.conversation.said("user", question)
    ids = prompt_ids(model.tokenizer, asked)
    settings = with_room(session.settings, model.context_length - len(ids))
    writer = Typewriter(Detokenizer(model.tokenizer, skip_special_tokens=True), sys.stdout, stops_of(settings))
    try:
        model.generate([ids], streamer=writer, **settings)
    except KeyboardInterrupt:
        if not turns.interactive:
            raise
        turns.interrupted()
        note(" (stopped)")
    print(flush=True)
    if not writer.text.strip():
        return session
    return replace(session, conversation=asked.said("assistant", writer.text.strip()), timings=writer.timings)


def with_room(settings: Mapping[str, Any], room: int) -> dict[str, Any]:
    """The settings, with the rest of the context as the length where none is set."""
    if room < 1:
        raise ContextLengthError(
            "the conversation must leave room for an answer, but it fills the context. Say /clear."
        )
    if {"max_new_tokens", "max_length"} & settings.keys():
        return dict(settings)
    return {**settings, "max_new_tokens": room}
