"""What a setting's value may be: one small check an idea, each of which can say what it allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

from fabula.errors import ArgumentError

__all__ = ["ANYTHING", "BOOLEAN", "NUMERIC", "Check", "ids", "listed", "nearest", "number", "one_of", "texts", "whole"]


@dataclass(frozen=True, slots=True)
class Check:
    """A question to one value, None excepted: None always means "not set"."""

    allowed: str  # completes "`name` must be ..."
    accepts: Callable[[Any], bool]
    at_once: bool = False  # asked when a config is made, not only when it is used
    advice: str = "Leave it out, or pass None, for the default."  # what to do instead

    def require(self, name: str, value: Any) -> None:
        """Raise ArgumentError unless `value` is None or accepted."""
        if value is not None and not self.accepts(value):
            raise ArgumentError(f"`{name}` must be {self.allowed}, got {value!r}. {self.advice}")

    def early(self) -> Check:
        """The same check, asked as soon as a config is made."""
        return replace(self, at_once=True)

    def advise(self, advice: str) -> Check:
        """The same check with other advice."""
        return replace(self, advice=advice)


def is_whole(value: Any) -> bool:
    """Whether `value` is an integer of Python or NumPy, booleans excepted."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether `value` is a real number of Python or NumPy, booleans and NaN excepted."""
    return isinstance(value, Real) and not isinstance(value, bool) and value == value


def whole(least: int) -> Check:
    """An integer of at least `least`."""
    return Check(f"an int of at least {least}", lambda value: is_whole(value) and value >= least)


def number(interval: str) -> Check:
    """A number in `interval`, written as `[0, 1)`; `inf` stands for no end."""
    low, high = (float(end) for end in interval[1:-1].split(","))

    def accepts(value: Any) -> bool:
        if not is_number(value):
            return False
        return (value >= low if interval[0] == "[" else value > low) and (
            value <= high if interval[-1] == "]" else value < high
        )

    return Check(f"a number in {interval}", accepts)


def one_of(*values: Any) -> Check:
    """One of `values`."""
    return Check("one of " + ", ".join(repr(value) for value in values), lambda value: value in values)


def listed(allowed: str, item: Callable[[Any], bool]) -> Check:
    """A non-empty list or tuple whose every item passes `item`."""

    def accepts(value: Any) -> bool:
        return isinstance(value, list | tuple) and len(value) > 0 and all(item(one) for one in value)

    return Check(allowed, accepts)


def ids(*, alone: bool, least: int = 0) -> Check:
    """A list of token ids; with `alone`, one id will do too."""

    def is_id(value: Any) -> bool:
        return is_whole(value) and value >= least

    def accepts(value: Any) -> bool:
        if isinstance(value, Iterable) and not isinstance(value, str | bytes | dict):
            return all(is_id(one) for one in value)
        return alone and is_id(value)

    return Check("a token id or a list of token ids" if alone else "a list of token ids", accepts)


def texts() -> Check:
    """A text or a list of texts, none of them empty."""

    def is_text(value: Any) -> bool:
        return isinstance(value, str) and value != ""

    many = listed("", is_text)
    return Check("a text or a list of texts, none empty", lambda value: is_text(value) or many.accepts(value))


NUMERIC = Check("a number", is_number)
ANYTHING = Check("anything", lambda value: True)
BOOLEAN = Check("True or False", lambda value: isinstance(value, bool))


def nearest(name: str, known: Iterable[str], least: float = 0.6) -> str | None:
    """The known name most like `name`, or None where none is like it."""
    found = get_close_matches(name, list(known), n=1, cutoff=least)
    return found[0] if found else None
