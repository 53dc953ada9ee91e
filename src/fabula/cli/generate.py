"""`fabula generate`: continues a prompt, or answers it, and streams what comes."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from fabula.cli.answers import Answer, answers
from fabula.cli.conversation import Conversation, prompt_ids
from fabula.cli.generation_flags import add_generation_flags, generation_settings
from fabula.cli.prompt_input import read_text
from fabula.cli.source_flags import add_model_flags, load_model
from fabula.cli.typewriter import Typewriter, cut
from fabula.errors import ArgumentError
from fabula.text.detokenizer import Detokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.usage = "%(prog)s [PROMPT | -] [options]"
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="the text to continue; '-' or nothing reads a pipe")
    parser.add_argument("--chat", action="store_true", help="put the prompt as a question, in the model's chat format")
    parser.add_argument("--system", metavar="TEXT", help="the instruction before the question; implies --chat")
    parser.add_argument("--json", action="store_true", help="print one JSON object a sequence when it is complete")
    add_model_flags(parser)
    add_generation_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Loads, generates, prints."""
    prompt = read_text(arguments.prompt, "prompt")
    settings = generation_settings(arguments)
    started = time.perf_counter()
    model = load_model(arguments)
    loaded = time.perf_counter() - started
    ids = encode(model.tokenizer, prompt, arguments)
    if arguments.json:
        print_json(model, prompt, ids, settings, {"load_ms": round(1000 * loaded, 3)})
    elif (settings.get("num_return_sequences") or 1) > 1:
        print_sequences(model, ids, settings)
    else:
        stream(model, ids, settings)


def encode(tokenizer: Any, prompt: str, arguments: argparse.Namespace) -> list[int]:
    """The prompt's ids: in the chat format where that was asked for."""
    if arguments.chat or arguments.system is not None:
        return prompt_ids(tokenizer, Conversation(arguments.system).said("user", prompt))
    ids = list(tokenizer(prompt)["input_ids"])
    if not ids:
        raise ArgumentError("the prompt must hold at least one token, got an empty text.")
    return ids


def stream(model: Any, ids: list[int], settings: dict[str, Any]) -> None:
    """Writes the answer as it comes."""
    writer = Typewriter(Detokenizer(model.tokenizer, skip_special_tokens=True), sys.stdout, stops_of(settings))
    try:
        model.generate([ids], streamer=writer, **settings)
    finally:
        print(flush=True)


def print_sequences(model: Any, ids: list[int], settings: dict[str, Any]) -> None:
    """Writes several sequences, one after another, each behind a line with its number."""
    for number, row in enumerate(model.generate([ids], **settings), 1):
        text = model.tokenizer.decode(row[len(ids) :], skip_special_tokens=True)
        print(f"--- {number}\n{cut(text, stops_of(settings))}", flush=True)


def print_json(model: Any, prompt: str, ids: list[int], settings: dict[str, Any], load: dict[str, float]) -> None:
    """Writes a line of JSON for each sequence."""
    result = answers(model, ids, settings)
    for sequence in result.sequences:
        line = {
            "model": model.name_or_path,
            "prompt": prompt,
            "prompt_ids": ids,
            **described(model, sequence, stops_of(settings)),
            "timings": {**load, **result.timings},
        }
        print(json.dumps(line, ensure_ascii=False))


def described(model: Any, answer: Answer, stop_strings: list[str]) -> dict[str, Any]:
    """A sequence as --json shows it."""
    text = model.tokenizer.decode(answer.ids, skip_special_tokens=True)
    return {
        "text": cut(text, stop_strings),
        "ids": answer.ids,
        "log_probabilities": answer.log_probabilities,
        "finish_reason": answer.finish_reason,
    }


def stops_of(settings: dict[str, Any]) -> list[str]:
    """The stop strings among the settings."""
    stops = settings.get("stop_strings") or []
    return [stops] if isinstance(stops, str) else list(stops)
