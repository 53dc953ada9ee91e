"""`fabula info`: what a model is and needs; without a source, what this machine has."""

from __future__ import annotations

import argparse
import json
from typing import Any

from fabula.cli.environment import environment
from fabula.cli.model_facts import model_facts
from fabula.cli.source_flags import add_source_flags, open_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="a directory, a .gguf file, a hub id, or a name")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_source_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prints the facts as a table or as JSON."""
    facts = environment() if arguments.source is None else model_facts(open_source(arguments.source, arguments))
    print(json.dumps(facts, ensure_ascii=False) if arguments.json else table(facts))


def table(facts: dict[str, Any]) -> str:
    """A line a fact; what is nested, below its name."""
    width = max(len(name) for name in facts)
    lines: list[str] = []
    for name, value in facts.items():
        rows = nested(value) if isinstance(value, dict) else [readable(name, value)]
        labels = [name.replace("_", " "), *[""] * (len(rows) - 1)]
        lines += [f"{label:<{width}}  {row}" for label, row in zip(labels, rows, strict=True)]
    return "\n".join(lines)


def nested(facts: dict[str, Any]) -> list[str]:
    """A line a fact, its name before it."""
    width = max(len(name) for name in facts)
    return [f"{name:<{width}}  {readable(name, value)}" for name, value in facts.items()]


def readable(name: str, value: Any) -> str:
    """A number with its unit, a truth as yes or no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and "bytes" in name:
        return sized(value)
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else str(value)


def sized(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"
