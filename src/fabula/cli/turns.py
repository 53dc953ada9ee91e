"""What a person types in a chat, a turn at a time: a line, or lines between two marks of three quotes."""

from __future__ import annotations

import sys
from importlib import import_module, util

from fabula.cli.terminal import is_terminal, note

QUOTES = '"""'
PROMPT, CONTINUED = ">>> ", "... "


class Turns:
    """Reads turns from standard input; shows a prompt only to a person."""

    def __init__(self) -> None:
        self.interactive = is_terminal(sys.stdin)
        self._warned = False  # one Ctrl-C has been answered with a hint, and nothing was typed since
        if self.interactive and util.find_spec("readline"):
            import_module("readline")  # gives input() its line editing and history

    def interrupted(self) -> None:
        """An answer was stopped with Ctrl-C: the next one at the prompt leaves."""
        self._warned = True

    def next(self) -> str | None:
        """The next turn, without the quotes; None at the end of input. Ctrl-C twice raises KeyboardInterrupt."""
        while True:
            try:
                turn = self._turn()
            except EOFError:
                return None
            except KeyboardInterrupt:
                if self._warned or not self.interactive:
                    raise
                self._warned = True
                note("\n(Ctrl-C once more, Ctrl-D or /bye leaves)")
                continue
            self._warned = False
            if turn.strip():
                return turn

    def _turn(self) -> str:
        line = self._line(PROMPT)
        if not line.lstrip().startswith(QUOTES):
            return line
        text = line.lstrip()[len(QUOTES) :]
        while not text.rstrip().endswith(QUOTES):
            text += "\n" + self._line(CONTINUED)
        return text.rstrip()[: -len(QUOTES)].strip("\n")

    def _line(self, prompt: str) -> str:
        return input(prompt if self.interactive else "")
