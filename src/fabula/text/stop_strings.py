"""Stop strings in streamed text: what is safe to show is given, what may still become a stop string is held back.

An Aho-Corasick automaton (Aho and Corasick 1975) over characters: linear in the text, whatever the stop strings are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from fabula.errors import ArgumentError


class StopAutomaton:
    """The stop strings as an automaton, built once and shared by any number of rows."""

    def __init__(self, stops: str | Sequence[str]) -> None:
        self.stops = (stops,) if isinstance(stops, str) else tuple(stops)
        for stop in self.stops:
            if not isinstance(stop, str) or not stop:
                raise ArgumentError(f"`stop_strings` must be strings of at least one character, got {stop!r}.")
        self._next: list[dict[str, int]] = [{}]  # state -> character -> state; 0 is the start
        self._depth = [0]  # how many characters of a stop string a state stands for
        self._match: list[str | None] = [None]  # the longest stop string that ends in a state
        for stop in self.stops:
            self._insert(stop)
        self._shorter = self._link()  # the state of the longest proper suffix

    def _insert(self, stop: str) -> None:
        state = 0
        for character in stop:
            if character not in self._next[state]:
                self._next[state][character] = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._match.append(None)
            state = self._next[state][character]
        self._match[state] = stop

    def _link(self) -> list[int]:
        """Each state's longest proper suffix, breadth first; matches pass from suffixes to what ends in them."""
        shorter = [0] * len(self._next)
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            for character, child in self._next[state].items():
                suffix = shorter[state]
                while suffix and character not in self._next[suffix]:
                    suffix = shorter[suffix]
                shorter[child] = self._next[suffix].get(character, 0)
                queue.append(child)
            self._match[state] = self._match[state] or self._match[shorter[state]]
        return shorter

    def step(self, state: int, character: str) -> int:
        """The state after one more character."""
        while state and character not in self._next[state]:
            state = self._shorter[state]
        return self._next[state].get(character, 0)

    def held(self, state: int) -> int:
        """How many characters at the end of the text may be the start of a stop string."""
        return self._depth[state]

    def match(self, state: int) -> str | None:
        """The longest stop string that ends here."""
        return self._match[state]


class StopStrings:
    """One row's text against stop strings. The first to be complete wins; of two that end together the longer."""

    def __init__(self, stops: StopAutomaton | str | Sequence[str]) -> None:
        self._automaton = stops if isinstance(stops, StopAutomaton) else StopAutomaton(stops)
        self.stops = self._automaton.stops
        self._state = 0
        self._held = ""
        self.matched: str | None = None

    def put(self, piece: str) -> tuple[str, str | None]:
        """The text that is safe to show now, and the stop string that was found; after it the row has ended."""
        if self.matched is not None:
            return "", self.matched
        text, seen = self._held + piece, len(self._held)
        for place in range(seen, len(text)):
            self._state = self._automaton.step(self._state, text[place])
            self.matched = self._automaton.match(self._state)
            if self.matched is not None:
                self._held = ""
                return text[: place + 1 - len(self.matched)], self.matched
        border = len(text) - self._automaton.held(self._state)
        self._held = text[border:]
        return text[:border], None

    def end(self) -> str:
        """What was held back, now that no text follows."""
        held, self._held, self._state = self._held, "", 0
        return held
