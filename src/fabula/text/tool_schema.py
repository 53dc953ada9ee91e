"""A Python function as the JSON schema that chat templates show to a model: from type hints and a Google docstring."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fabula.errors import ArgumentError

_SCALARS: Mapping[Any, str] = MappingProxyType(
    {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
)
_CONTAINERS: Mapping[Any, str] = MappingProxyType({list: "array", tuple: "array", dict: "object"})
_SECTIONS = ("Args:", "Returns:", "Raises:")


def tool_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """`{"type": "function", "function": {...}}`; raises ArgumentError naming what the function does not say."""
    name = getattr(function, "__name__", "operation")
    text = inspect.getdoc(function)
    if not text:
        raise ArgumentError(f"The tool {name} must have a docstring, got none. Describe it and its arguments.")
    documented = _read_docstring(text.strip())
    hints, required = _signature(function, name)
    properties = {}
    for argument, hint in hints.items():
        if argument not in documented.arguments:
            raise ArgumentError(
                f"The docstring of the tool {name} must describe `{argument}` below Args:, and does not."
            )
        properties[argument] = _described(_hint_schema(hint, f"{name}({argument})"), documented.arguments[argument])
    parameters = {"type": "object", "properties": properties, **({"required": required} if required else {})}
    schema = {"name": name, "description": documented.description, "parameters": parameters}
    returned = _returned(function, documented.returns)
    return {"type": "function", "function": schema | ({} if returned is None else {"return": returned})}


def _signature(function: Callable[..., Any], name: str) -> tuple[dict[str, Any], list[str]]:
    """The arguments' type hints, and which arguments have no default; `self` and `cls` are left out."""
    parameters = list(inspect.signature(function).parameters.values())
    if parameters and parameters[0].name in ("self", "cls") and parameters[0].annotation is inspect.Parameter.empty:
        parameters = parameters[1:]
    for parameter in parameters:
        if parameter.annotation is inspect.Parameter.empty:
            raise ArgumentError(f"The tool {name} must have a type hint for `{parameter.name}`, and has none.")
    all_hints = get_type_hints(function)
    hints = {parameter.name: all_hints[parameter.name] for parameter in parameters}
    return hints, [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]


def _returned(function: Callable[..., Any], description: str | None) -> dict[str, Any] | None:
    """The schema of what the function returns; None where it does not say, or says what JSON has no type for."""
    hints = get_type_hints(function)
    if "return" not in hints:
        return None
    try:
        schema = _hint_schema(hints["return"], "return")
    except ArgumentError:
        return None
    return schema if description is None else schema | {"description": description}


def _described(schema: dict[str, Any], description: str) -> dict[str, Any]:
    """The schema with its description; `(choices: [...])` at the end of that is an enum."""
    start = description.lower().rfind("(choices:")
    if start >= 0 and description.endswith(")"):
        choices = json.loads(description[start + len("(choices:") : -1])
        values = [choice.strip() if isinstance(choice, str) else choice for choice in choices]
        return schema | {"enum": values, "description": description[:start].strip()}
    return schema | {"description": description}


def _hint_schema(hint: Any, place: str) -> dict[str, Any]:
    """A type hint as a JSON schema."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return {}
    if origin is None:
        if isinstance(hint, type) and issubclass(hint, Enum):
            return _choices([member.value for member in hint], place)
        kind = _SCALARS.get(hint) or _CONTAINERS.get(hint)
        if kind is None:
            raise ArgumentError(
                f"The type hint of {place} must be int, float, str, bool, list, tuple, dict, an Enum, Literal, Any or "
                f"a union of those, got {hint!r}. Pass the tool as a JSON schema instead."
            )
        return {"type": kind}
    if origin is Union or origin is types.UnionType:
        return _union(arguments, place)
    if origin is Literal:
        return _choices(list(arguments), place)
    if origin is list:
        return {"type": "array", "items": _hint_schema(arguments[0], place)}
    if origin is tuple:
        return _tuple(arguments, place)
    if origin is dict:
        return {"type": "object", "additionalProperties": _hint_schema(arguments[1], place)}
    raise ArgumentError(
        f"The type hint of {place} must be one that JSON has, got {hint!r}. Pass a JSON schema instead."
    )


def _choices(values: list[Any], place: str) -> dict[str, Any]:
    if not values or any(type(value) not in _SCALARS for value in values):
        raise ArgumentError(f"The choices of {place} must be strings, numbers, booleans or None, got {values!r}.")
    kinds = list(dict.fromkeys(_SCALARS[type(value)] for value in values))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


def _union(arguments: tuple[Any, ...], place: str) -> dict[str, Any]:
    """One type, a list of types or `anyOf`; None among them makes it nullable."""
    schemas = [_hint_schema(argument, place) for argument in arguments if argument is not type(None)]
    nullable = {"nullable": True} if type(None) in arguments else {}
    if len(schemas) == 1:
        return schemas[0] | nullable
    if all(schema.keys() == {"type"} and isinstance(schema["type"], str) for schema in schemas):
        kinds = sorted({schema["type"] for schema in schemas})
        return {"type": kinds[0] if len(kinds) == 1 else kinds} | nullable
    return {"anyOf": schemas} | nullable


def _tuple(arguments: tuple[Any, ...], place: str) -> dict[str, Any]:
    if len(arguments) == 1 or ... in arguments:
        raise ArgumentError(
            f"The tuple of {place} must name each of two or more entries. Use list[...] for other lengths."
        )
    return {"type": "array", "prefixItems": [_hint_schema(argument, place) for argument in arguments]}


@dataclass(frozen=True)
class _Docstring:
    """A Google-style docstring's parts."""

    description: str
    arguments: Mapping[str, str]
    returns: str | None


def _read_docstring(text: str) -> _Docstring:
    """The description, each argument's, and the return value's."""
    starts = [place for section in _SECTIONS if (place := text.find(section)) >= 0]
    description = text[: min(starts, default=len(text))].strip()
    arguments = _section(text, "Args:", ("Returns:", "Raises:"))
    returns = _section(text, "Returns:", ("Raises:",))
    entries = {} if arguments is None else _entries(arguments)
    return _Docstring(description, entries, None if returns is None else returns.strip())


def _section(text: str, title: str, ends: tuple[str, ...]) -> str | None:
    """What stands below a line that is only `title`, up to the next of `ends`."""
    lines = text.split("\n")
    place = next((place for place, line in enumerate(lines) if place and line.strip() == title), None)
    if place is None:
        return None
    below = "\n".join(lines[place + 1 :])
    return below[: min((found for end in ends if (found := below.find(end)) >= 0), default=len(below))]


def _entries(block: str) -> dict[str, str]:
    """`name: description` entries; deeper lines and lines without a name belong to the entry before."""
    found: list[tuple[str, list[str]]] = []
    indent = ""
    for line in block.split("\n"):
        name, colon, rest = line.strip().partition(":")
        blank = line[: len(line) - len(line.lstrip(" \t"))]
        starts = bool(colon) and name.replace("_", "a").isalnum()
        deeper = bool(found) and blank.startswith(indent) and len(blank) > len(indent)
        if starts and not deeper:
            found.append((name, [rest.strip()]))
            indent = blank
        elif found and line.strip():
            found[-1][1].append(line.strip())
    return {name: " ".join(part for part in parts if part) for name, parts in found}
