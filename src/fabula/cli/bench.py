"""`fabula bench`: speed and memory of a model on this machine."""

from __future__ import annotations

import argparse

from fabula.cli.source_flags import add_model_flags
from fabula.errors import NotSupportedError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_model_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Measures and prints."""
    raise NotSupportedError("`fabula bench` cannot measure yet. Use `fabula generate --json` for one run's timings.")
