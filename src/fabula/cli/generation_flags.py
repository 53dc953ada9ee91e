"""Every field of GenerationConfig as a flag, made from the table of fields; and the settings that were given."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fabula.generation.settings.fields import FIELDS, Field

MAX_NEW_TOKENS = 256  # of the command line, where nobody sets a length

TITLES: Mapping[str, str] = MappingProxyType(
    {
        "length": "length",
        "strategy": "how tokens are chosen",
        "logits": "what is done to the scores",
        "output": "what is returned",
        "tokens": "special tokens",
        "cache": "cache",
        "assistant": "drafts",
        "encoder": "encoder and decoder",
        "performance": "performance",
    }
)


def add_generation_flags(parser: argparse.ArgumentParser) -> None:
    """One flag a field, in groups, absent from the parsed arguments unless given."""
    groups = {group: parser.add_argument_group(title) for group, title in TITLES.items()}
    for field in FIELDS.values():
        groups[field.group].add_argument(f"--{field.name.replace('_', '-')}", **_flag(field))


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields that were given, by name."""
    return {name: value for name, value in vars(arguments).items() if name in FIELDS}


def generation_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields that were given, and the command line's own length where no length was."""
    settings = given_settings(arguments)
    if not {"max_new_tokens", "max_length"} & settings.keys():
        settings["max_new_tokens"] = MAX_NEW_TOKENS
    return settings


def read_setting(name: str, text: str) -> Any:
    """A field's value from its text, as the flag of that name reads it. Raises ValueError."""
    return READERS[FIELDS[name].kind](text)


def _flag(field: Field) -> dict[str, Any]:
    """add_argument's keyword arguments for a field."""
    default = MAX_NEW_TOKENS if field.name == "max_new_tokens" else field.default
    known = "" if default in (None, False) else f" ({default})"
    flag = {
        "dest": field.name,
        "default": argparse.SUPPRESS,
        "help": (field.meaning.rstrip(".") + known).replace("%", "%%"),
    }
    if field.kind == "bool":
        return flag | {"action": argparse.BooleanOptionalAction}
    if field.kind == "texts":
        return flag | {"action": "append", "metavar": "TEXT"}
    return flag | {"type": READERS[field.kind], "metavar": METAVARS[field.kind]}


def _optional(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader that takes `none` for None, as Python's callers do to switch a field off."""

    def reader(text: str) -> Any:
        return None if text.lower() == "none" else read(text)

    reader.__name__ = read.__name__.strip("_")  # argparse names it in its errors
    return reader


def _number(text: str) -> float | int:
    """A whole number stays one, as `temperature=0` does in Python."""
    return int(text) if text.lstrip("-").isdigit() else float(text)


def _ids(text: str) -> int | list[int]:
    """One id, or several between commas."""
    ids = [int(part) for part in text.split(",")]
    return ids if len(ids) > 1 else ids[0]


def _truth(text: str) -> bool:
    """yes, true, on and 1, or no, false, off and 0."""
    word = text.lower()
    if word not in ("yes", "true", "on", "1", "no", "false", "off", "0"):
        raise ValueError(text)
    return word in ("yes", "true", "on", "1")


def _value(text: str) -> Any:
    """JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _texts(text: str) -> list[str]:
    """A JSON list of texts, or the one text."""
    value = _value(text)
    return value if isinstance(value, list) else [text]


READERS: Mapping[str, Callable[[str], Any]] = MappingProxyType(
    {
        "int": _optional(int),
        "float": _optional(_number),
        "bool": _optional(_truth),
        "text": _optional(str),
        "ints": _optional(_ids),
        "texts": _optional(_texts),
        "value": _optional(_value),
    }
)

METAVARS = MappingProxyType({"int": "N", "float": "X", "text": "NAME", "ints": "ID[,ID]", "value": "VALUE"})
