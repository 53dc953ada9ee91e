"""What one rendering of a template may cost: processor time, characters and list entries made, characters written.

A template comes with a model and is not trusted. Everything that makes a value charges it here, before it is made
where it may be much larger than what it is made of; every loop, call, filter and test looks at the clock.
"""

from __future__ import annotations

import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Set, ValuesView
from typing import Any

from jinja2.utils import Namespace

from fabula.errors import TemplateError

SECONDS = 0.5  # of this thread's processor time, so that a busy machine refuses nothing
WRITTEN = 16 * 2**20  # characters of output
_MADE = 32 * 2**20  # characters made on the way, and so many more a character of input:
_MADE_PER_INPUT = 64
_ENTRY = 64  # what an entry of a list costs, in characters
_BITS = 4096  # of an integer
_LOOK = 64  # small steps between two looks at the clock, which costs as much as a step


class Budget:
    """The account of one rendering; raises TemplateError when it is used up."""

    def __init__(self, input_characters: int = 0, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._end = time.thread_time() + seconds
        self._left = _MADE + _MADE_PER_INPUT * input_characters
        self._steps = _LOOK

    def tick(self, value: Any = None) -> Any:
        """`value`, if there is time left."""
        self._steps -= 1
        if self._steps < 0:
            self._steps = _LOOK
            if time.thread_time() > self._end:
                raise TemplateError(f"The chat template must be rendered in {self._seconds:g} s. Simplify it.")
        return value

    def charge(self, characters: int) -> None:
        """Takes what is about to be made from what is left."""
        self._steps -= characters >> 8
        self.tick()
        self._left -= characters
        if self._left < 0:
            raise TemplateError("The chat template makes more text than its bounds allow. Simplify it.")

    def weigh(self, value: Any) -> Any:
        """`value`, charged with all that writing it would take: a list that holds another one twice weighs it twice."""
        kind = type(value)
        if kind is int or kind is bool or kind is float or value is None:
            return value
        if isinstance(value, str | bytes):
            self.charge(len(value))
        elif isinstance(value, Namespace):
            self.weigh(value._Namespace__attrs)
        elif isinstance(value, list | tuple | Set | KeysView | ItemsView | ValuesView):
            self.charge(_ENTRY * len(value))
            for item in value:
                self.weigh(item)
        elif isinstance(value, Mapping):
            self.charge(2 * _ENTRY * len(value))
            for key, item in value.items():
                self.weigh(key)
                self.weigh(item)
        return value

    def each(self, values: Iterable[Any]) -> Iterator[Any]:
        """`values`, with a look at the clock before each."""
        for value in values:
            self.tick()
            yield value

    def entries(self, values: Iterable[Any]) -> list[Any]:
        """`values` as a list, each entry charged before it is kept."""
        made = []
        for value in values:
            self.charge(_ENTRY)
            made.append(value)
        return made

    def charge_entries(self, count: int) -> None:
        """Charges a list of `count` entries."""
        self.charge(_ENTRY * count)


def check_integer(bits: int) -> None:
    """Raises TemplateError for a result of more bits than any count or time has."""
    if bits > _BITS:
        raise TemplateError(f"The chat template must not compute integers of more than {_BITS} bits, got {bits}.")
