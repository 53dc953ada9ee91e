"""`fabula pull`: fetches a model, checks it, and prints where it lies."""

from __future__ import annotations

import argparse

from fabula.cli.source_flags import add_source_flags, open_source
from fabula.cli.terminal import note
from fabula.hub.default_model import DEFAULT_MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("source", nargs="?", default=DEFAULT_MODEL, metavar="SOURCE", help="default: %(default)s")
    add_source_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prints the path: the only line on standard output."""
    checkpoint = open_source(arguments.source, arguments)
    note(f"{checkpoint.source}: {checkpoint.config['model_type']}, {len(checkpoint.tensors)} tensors, ready")
    print(checkpoint.path)
