"""`fabula tokenize`: a text's tokens, or the text of token ids."""

from __future__ import annotations

import argparse
import json
from typing import Any

from fabula.cli.prompt_input import read_text
from fabula.cli.source_flags import add_source_flags, load_tokenizer
from fabula.errors import ArgumentError
from fabula.hub.default_model import DEFAULT_MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("text", nargs="?", metavar="TEXT", help="the text; '-' or nothing reads a pipe")
    parser.add_argument("-m", "--model", default=DEFAULT_MODEL, metavar="SOURCE", help="whose tokenizer (%(default)s)")
    parser.add_argument("--special", action=argparse.BooleanOptionalAction, default=True, help="add special tokens")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--ids", action="store_true", help="print only the ids, in one line")
    shape.add_argument("--count", action="store_true", help="print only how many there are")
    shape.add_argument("--json", action="store_true", help="print ids and tokens as JSON")
    shape.add_argument("--decode", action="store_true", help="TEXT is ids, between spaces or commas: print their text")
    add_source_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prints the tokens in the shape asked for."""
    text = read_text(arguments.text, "text")
    tokenizer = load_tokenizer(arguments)
    if arguments.decode:
        print(tokenizer.decode(read_ids(text, len(tokenizer))))
        return
    ids = list(tokenizer(text, add_special_tokens=arguments.special)["input_ids"])
    if arguments.ids:
        print(*ids)
    elif arguments.count:
        print(len(ids))
    elif arguments.json:
        print(json.dumps({"ids": ids, "tokens": pieces(tokenizer, ids)}, ensure_ascii=False))
    else:
        for token, piece in zip(ids, pieces(tokenizer, ids), strict=True):
            print(f"{token:>8}  {piece!r}")


def pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    """What each token stands for, as the vocabulary spells it."""
    return list(tokenizer.convert_ids_to_tokens(ids))


def read_ids(text: str, vocabulary: int) -> list[int]:
    """The ids in a text. Raises ArgumentError for what is none."""
    words = text.replace(",", " ").replace("[", " ").replace("]", " ").split()
    wrong = next((word for word in words if not word.isdigit() or int(word) >= vocabulary), None)
    if wrong is not None:
        raise ArgumentError(f"ids must be whole numbers in [0, {vocabulary}), got {wrong!r}.")
    return [int(word) for word in words]
