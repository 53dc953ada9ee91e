"""`fabula`: reads the command's name, hands over, and turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

import fabula
from fabula.cli.failures import reported

# Command -> what it does. Each is a file here with `add_arguments(parser)` and `run(arguments)`.
COMMANDS = {
    "generate": "continue a prompt, or answer it with --chat",
    "chat": "talk with a model, many turns",
    "info": "what a model is and needs; without a source, what this machine has",
    "pull": "fetch a model and say where it is",
    "tokenize": "show a text's tokens, or the text of token ids",
    "score": "how well a model predicts a text: its perplexity",
    "bench": "measure speed and memory, also against other engines",
}

EPILOG = """\
exit codes: 0 done, 1 failed, 2 usage, 3 model file, 4 memory, 130 interrupted
`fabula COMMAND --help` lists a command's options. A name with underscores is read as one with hyphens.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    words = [hyphenated(word) for word in (sys.argv[1:] if argv is None else argv)]
    with reported(debug="--debug" in words) as outcome:
        arguments = parser_for(words).parse_args(words)
        import_module(f"fabula.cli.{arguments.command}").run(arguments)
    return outcome.code


def parser_for(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command that the words name; of the others it knows only the line in --help."""
    parser = argparse.ArgumentParser(
        prog="fabula",
        description="Generates text with language models.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fabula {fabula.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    asked = next((word for word in words if not word.startswith("-")), None)
    for name, meaning in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=meaning,
            description=meaning[0].upper() + meaning[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == asked:
            import_module(f"fabula.cli.{name}").add_arguments(command)
    return parser


def hyphenated(word: str) -> str:
    """An option as the parser knows it: `--max_new_tokens=5` is `--max-new-tokens=5`."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value
