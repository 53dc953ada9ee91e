"""What is streamed adds up to the text, and no part of a stop string is ever shown."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as some

from fabula.cli.typewriter import Typewriter, cut, held_back


class Letters:
    """Pieces whose ids are code points."""

    def put(self, token_id: int) -> str:
        return chr(token_id)

    def end(self) -> str:
        return ""


class Shown(io.StringIO):
    """Remembers every state that a reader could have seen."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[str] = []

    def flush(self) -> None:
        self.states.append(self.getvalue())


def written(text: str, stops: list[str]) -> Shown:
    out = Shown()
    writer = Typewriter(Letters(), out, stops)
    writer.put(np.array([[1, 2, 3]]))
    for letter in text:
        writer.put(np.array([ord(letter)]))
    writer.end()
    return out


letters = some.text(alphabet="abc", max_size=12)
stop_lists = some.lists(some.text(alphabet="abc", min_size=1, max_size=4), max_size=3)


@given(letters, stop_lists)
def test_what_is_shown_is_the_text_up_to_the_first_stop_string(text: str, stops: list[str]):
    out = written(text, stops)
    assert out.getvalue() == cut(text, stops)


@given(letters, stop_lists)
def test_nothing_shown_is_ever_taken_back(text: str, stops: list[str]):
    out = written(text, stops)
    assert all(out.getvalue().startswith(state) for state in out.states)


def test_only_what_may_become_a_stop_string_is_held_back():
    assert held_back("so far", ["END"]) == 0
    assert held_back("so far E", ["END"]) == 1
    assert held_back("so far EN", ["END"]) == 2
    assert held_back("so far END and", ["END"]) == len("END and")


def test_the_prompt_is_counted_and_not_shown():
    writer = Typewriter(Letters(), io.StringIO())
    writer.put(np.array([[5, 6, 7]]))
    writer.put(np.array([97]))
    writer.end()
    assert (writer.prompt_tokens, writer.ids, writer.text) == (3, [97], "a")
    assert writer.timings["predicted_n"] == 1
    assert writer.timings["prompt_n"] == 3
