"""The operations of a template whose result may be much larger than their operands: bounded twins, and refusals.

Each twin charges the budget with the size of its result before it makes it. What no chat template needs is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jinja2 import filters as stock

from fabula.errors import TemplateError
from fabula.text.template_budget import Budget, check_integer

_WIDTH = 4096  # columns, places or copies that a single argument may ask for
_SPACES = " \n\t\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2028\u2029\u3000"


def apply_operator(budget: Budget, operator: str, left: Any, right: Any) -> Any:
    """`left + right`, `*`, `**` or `%`; the last three on numbers only."""
    budget.tick()
    if operator == "+":
        if isinstance(left, str) and isinstance(right, str):
            budget.charge(len(left) + len(right))
        elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
            budget.charge_entries(len(left) + len(right))
        return left + right
    if not (isinstance(left, int | float) and isinstance(right, int | float)):
        raise TemplateError(
            f"The chat template must use `{operator}` on numbers only, got {type(left).__name__} and "
            f"{type(right).__name__}."
        )
    if operator == "%":
        return left % right
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
        check_integer(bits)
    return left * right if operator == "*" else left**right


def _width(budget: Budget, text: str, width: Any) -> None:
    if isinstance(width, int) and abs(width) > _WIDTH:
        raise TemplateError(f"The chat template must not ask for a width above {_WIDTH}, got {width}.")
    budget.charge(len(text) + _WIDTH)


def _expand_tabs(budget: Budget, text: str, size: Any = 8) -> None:
    _width(budget, text, size)
    budget.charge(text.count("\t") * abs(int(size)))


def _join(budget: Budget, text: str, values: Any) -> None:
    """`values` is a list by now: see `guard_method`."""
    budget.charge(sum(len(value) + len(text) for value in values if isinstance(value, str)))


def _replace(budget: Budget, text: str, old: str, new: str, count: int = -1) -> None:
    found = text.count(old)
    times = found if count is None or count < 0 else min(found, count)
    budget.charge(len(text) + times * len(new))


def _split(budget: Budget, text: str, separator: str | None = None, *_: Any) -> None:
    count = text.count(separator) if separator else sum(text.count(space) for space in _SPACES)
    budget.charge_entries(count + 1)
    budget.charge(len(text))


def _lines(budget: Budget, text: str, *_: Any) -> None:
    _split(budget, text)


def _refuse(budget: Budget, *_: Any, **__: Any) -> None:
    raise TemplateError("The chat template uses an operation that chat templates may not use here.")


_METHODS: Mapping[str, Callable[..., None]] = MappingProxyType(
    {
        **dict.fromkeys(("center", "ljust", "rjust"), lambda budget, text, width, *_: _width(budget, text, width)),
        "zfill": _width,
        "expandtabs": _expand_tabs,
        "join": _join,
        "replace": _replace,
        **dict.fromkeys(("split", "rsplit"), _split),
        "splitlines": _lines,
        **dict.fromkeys(
            ("encode", "decode", "translate", "maketrans", "to_bytes", "from_bytes", "hex", "striptags", "unescape"),
            _refuse,
        ),
    }
)


def guard_method(budget: Budget, method: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """Charges the result of a method of a string before it is called; gives the arguments to call it with."""
    owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    guard = _METHODS.get(name)
    if guard is None or not isinstance(owner, str | bytes | int | type):
        return arguments
    if name == "join" and arguments and not isinstance(arguments[0], str):
        arguments = (budget.entries(arguments[0]), *arguments[1:])
    if name in ("split", "rsplit"):
        guard(budget, owner, *arguments, *(value for key, value in named.items() if key == "sep"))
    else:
        guard(budget, owner, *arguments, **named)
    return arguments


def check_format(budget: Budget, text: str, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    """Charges `text.format(...)` and `text % ...`; widths must be written out, in at most three digits."""
    budget.charge(len(text))
    digits = 0
    for character in text:
        digits = digits + 1 if character.isdigit() else 0
        if digits > 3:
            raise TemplateError("The chat template must format with widths of at most three digits.")
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth > 1 and "{{" not in text:
            raise TemplateError("The chat template must write the widths of a format out.")
    fields = text.count("{") + text.count("%")
    longest = max((len(str(budget.weigh(value))) for value in (*arguments, *named.values())), default=0)
    budget.charge(fields * (longest + 1000))


# Filters: name -> a function of the budget and the filter's arguments that is called first.


def _check_center(budget: Budget, value: Any, width: int = 80) -> None:
    _width(budget, str(value), width)


def _check_indent(budget: Budget, text: Any, width: Any = 4, first: bool = False, blank: bool = False) -> None:
    _width(budget, "", width if isinstance(width, int) else len(width))
    budget.charge((str(text).count("\n") + 1) * (width if isinstance(width, int) else len(width)))


def _check_replace(budget: Budget, text: Any, old: str, new: str, count: int | None = None) -> None:
    _replace(budget, str(text), str(old), str(new), -1 if count is None else count)


def _check_places(budget: Budget, value: Any, places: Any = 0, *_: Any, **__: Any) -> None:
    if isinstance(places, int) and abs(places) > 64:
        raise TemplateError(f"The chat template must round to at most 64 places, got {places}.")


def _check_groups(budget: Budget, value: Any, size: Any, *_: Any, **__: Any) -> None:
    if isinstance(size, int):
        budget.charge_entries(abs(size))


def _check_format(budget: Budget, text: Any, *arguments: Any, **named: Any) -> None:
    if "*" in str(text):
        raise TemplateError("The chat template must write the widths of a format out.")
    check_format(budget, str(text).replace("{", "").replace("}", ""), arguments, named)


FILTER_CHECKS: Mapping[str, Callable[..., None]] = MappingProxyType(
    {
        "center": _check_center,
        "indent": _check_indent,
        "replace": _check_replace,
        "round": _check_places,
        "batch": _check_groups,
        "slice": _check_groups,
        "format": _check_format,
        **dict.fromkeys(("urlize", "striptags", "wordwrap", "xmlattr", "pprint", "random"), _refuse),
    }
)

# Filters that make a list of their first argument, or walk through it: they get one whose making was charged.
WALKING = frozenset(
    (
        "list",
        "sort",
        "unique",
        "groupby",
        "batch",
        "slice",
        "sum",
        "min",
        "max",
        "first",
        "last",
        "map",
        "select",
        "reject",
        "selectattr",
        "rejectattr",
        "join",
        "dictsort",
        "reverse",
        "items",
    )
)

# Filters that write their first argument as text: a list that holds another one twice may be long when written.
WRITING = frozenset(
    (
        "string",
        "e",
        "escape",
        "forceescape",
        "safe",
        "upper",
        "lower",
        "title",
        "capitalize",
        "trim",
        "center",
        "indent",
        "replace",
        "wordcount",
        "urlencode",
        "truncate",
        "int",
        "float",
        "format",
    )
)


def write_json(
    budget: Budget,
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """`value` as JSON, nothing escaped for HTML: the `tojson` of chat templates."""
    budget.weigh(value)
    for part in (indent, *(separators or ())):
        size = part if isinstance(part, int) else len(part or "")
        if size > 32:
            raise TemplateError(f"The chat template must indent JSON by at most 32 characters, got {size}.")
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    budget.charge(len(text))
    return text


def join_filter(budget: Budget, eval_context: Any, value: Any, separator: str = "", attribute: Any = None) -> str:
    """`join`, whose result is charged before it is made."""
    if attribute is not None:
        get = stock.make_attrgetter(eval_context.environment, attribute)
        value = [get(item) for item in value]
    items = [str(budget.weigh(item)) if not hasattr(item, "__html__") else item for item in value]
    budget.charge(sum(len(item) for item in items) + len(str(separator)) * len(items))
    return stock.sync_do_join(eval_context, items, separator)


def sum_filter(budget: Budget, environment: Any, values: Any, attribute: Any = None, start: Any = 0) -> Any:
    """`sum`, of numbers only."""
    if attribute is not None:
        get = stock.make_attrgetter(environment, attribute)
        values = [get(item) for item in values]
    for value in values:
        start = apply_operator(budget, "*", apply_operator(budget, "*", value, 1) + start, 1)
    return start
