"""The command as a process: pipes that close, Ctrl-C, and a person at a terminal."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

try:
    import pty
except ImportError:  # Windows
    pty = None  # type: ignore[assignment]

COMMAND = [sys.executable, "-m", "fabula"]


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_ctrl_c_ends_a_run_with_130_and_one_line(tiny):
    words = [*COMMAND, "generate", "hello", "-m", tiny, "--max-new-tokens", "500", "--eos-token-id", "-1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == "fabula: interrupted\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes are POSIX's")
def test_a_reader_that_goes_away_ends_the_run_without_a_word(tiny):
    words = [*COMMAND, "generate", "hello", "-m", tiny, "--max-new-tokens", "500", "--eos-token-id", "-1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()
        process.wait(timeout=60)
    assert process.returncode == 141
    assert told == ""


class Terminal:
    """`fabula chat` with a person in front of it."""

    def __init__(self, *words: str) -> None:
        self.screen, far_end = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, "chat", *words], stdin=far_end, stdout=far_end, stderr=far_end, start_new_session=True
        )
        os.close(far_end)
        self.shown = ""

    def press_ctrl_c(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def press_ctrl_c_at_the_prompt(self) -> None:
        """Until something comes of it: readline can lose a signal that arrives while it draws the prompt."""
        for _ in range(30):
            self.press_ctrl_c()
            if select.select([self.screen], [], [], 2)[0]:
                return

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def wait_for(self, text: str) -> None:
        """Reads until the text is on the screen, and forgets all up to it."""
        while text not in self.shown:
            self.shown += self._read()
        self.shown = self.shown.partition(text)[2]

    def wait_for_more(self) -> None:
        """Reads until anything at all is on the screen."""
        while not self.shown:
            self.shown += self._read()

    def _read(self) -> str:
        ready, _, _ = select.select([self.screen], [], [], 60)
        assert ready, f"nothing came after {self.shown!r}"
        return os.read(self.screen, 4096).decode(errors="replace")

    def leave(self) -> int:
        """The exit code."""
        with contextlib.suppress(OSError):  # the terminal is gone with its program
            while os.read(self.screen, 4096):
                pass
        os.close(self.screen)
        return self.process.wait(60)


@pytest.fixture
def terminal(tiny) -> Iterator[Terminal]:
    if pty is None:
        pytest.skip("terminals are POSIX's")
    terminal = Terminal("-m", tiny, "--eos-token-id", "-1")
    yield terminal
    terminal.process.kill()
    terminal.process.wait(60)


def test_ctrl_c_stops_the_answer_and_not_the_chat(terminal):
    terminal.wait_for(">>> ")
    terminal.type("hello\n")
    terminal.wait_for("hello")
    terminal.wait_for("\n")
    terminal.wait_for_more()  # the answer has begun
    terminal.press_ctrl_c()
    terminal.wait_for("(stopped)")
    terminal.wait_for(">>> ")
    terminal.type("/show\n")
    terminal.wait_for("turns     2")
    terminal.wait_for(">>> ")
    terminal.type("/bye\n")
    assert terminal.leave() == 0


def test_ctrl_c_twice_at_the_prompt_leaves(terminal):
    terminal.wait_for(">>> ")
    terminal.press_ctrl_c_at_the_prompt()
    terminal.wait_for("once more")
    terminal.wait_for(">>> ")
    terminal.press_ctrl_c_at_the_prompt()
    assert terminal.leave() == 130


def test_a_person_is_told_of_a_mistake_and_goes_on(terminal):
    terminal.wait_for(">>> ")
    terminal.type("/set warmth 1\n")
    terminal.wait_for("warmth")
    terminal.wait_for(">>> ")
    terminal.type("\x04")
    assert terminal.leave() == 0
