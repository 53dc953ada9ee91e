"""The flags that say which model, from where, and who computes it; and the model that they name."""

from __future__ import annotations

import argparse
from typing import Any

import fabula
from fabula.cli.progress_bar import download_bar
from fabula.errors import ArgumentError
from fabula.hub.checkpoint import Checkpoint
from fabula.hub.default_model import DEFAULT_MODEL, fetch_default_model, is_default_model
from fabula.hub.open import open_checkpoint


def add_source_flags(parser: argparse.ArgumentParser) -> None:
    """Where the files come from."""
    group = parser.add_argument_group("where the files come from")
    group.add_argument("--revision", help="branch, tag or commit of a hub model")
    group.add_argument("--cache-dir", help="where fetched files are kept")
    group.add_argument("--offline", action="store_true", help="use only files that are here already")


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Which model, and who computes it."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "-m",
        "--model",
        default=DEFAULT_MODEL,
        metavar="SOURCE",
        help="a directory, a .gguf file, a hub id, or the default model, %(default)s",
    )
    group.add_argument("--backend", choices=("native", "torch"), help="who computes (native on a CPU)")
    group.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, auto (cpu)")
    group.add_argument("--dtype", metavar="TYPE", help="float32, bfloat16 or float16 (as stored)")
    group.add_argument("--load-in-4bit", action="store_true", help="quantize 16- and 32-bit weights on load")
    group.add_argument("--load-in-8bit", action="store_true", help="likewise, to 8 bits")
    group.add_argument("--threads", type=int, metavar="N", help="threads of the native backend (all cores)")
    add_source_flags(parser)


def source_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of every from_pretrained: those that were given."""
    settings = {"revision": arguments.revision, "cache_dir": arguments.cache_dir}
    if arguments.offline:
        settings["local_files_only"] = True
    return {name: value for name, value in settings.items() if value is not None}


def model_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of AutoModelForCausalLM.from_pretrained: those that were given."""
    settings = {
        "backend": arguments.backend,
        "device_map": arguments.device,
        "dtype": arguments.dtype,
        "threads": arguments.threads,
        "load_in_4bit": arguments.load_in_4bit or None,
        "load_in_8bit": arguments.load_in_8bit or None,
    }
    return source_settings(arguments) | {name: value for name, value in settings.items() if value is not None}


def load_model(arguments: argparse.Namespace) -> Any:
    """The model that the flags name."""
    fetch(arguments.model, arguments)
    return fabula.AutoModelForCausalLM.from_pretrained(arguments.model, **model_settings(arguments))


def load_tokenizer(arguments: argparse.Namespace) -> Any:
    """Its tokenizer."""
    fetch(arguments.model, arguments)
    return fabula.AutoTokenizer.from_pretrained(arguments.model, **source_settings(arguments))


def open_source(source: str, arguments: argparse.Namespace) -> Checkpoint:
    """The files behind a source, fetched where they are not here."""
    fetch(source, arguments)
    return open_checkpoint(source, **source_settings(arguments))


def fetch(source: str, arguments: argparse.Namespace) -> None:
    """Brings the default model here, with a bar, if that is what the source names (the hub shows bars of its own)."""
    if is_default_model(source):
        with download_bar(source) as progress:
            fetch_default_model(progress, cache_dir=arguments.cache_dir, local_files_only=arguments.offline)


def check_positive(name: str, value: int | None) -> None:
    """Refuses a count below one."""
    if value is not None and value < 1:
        raise ArgumentError(f"`{name}` must be at least 1, got {value}.")
