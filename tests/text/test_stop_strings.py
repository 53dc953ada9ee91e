"""Stop strings in streamed text: found however the text is cut, held back only as long as they may still come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from fabula.errors import ArgumentError
from fabula.text.stop_strings import StopAutomaton, StopStrings

letters = some.text(alphabet="abc", max_size=30)
stop_lists = some.lists(some.text(alphabet="abc", min_size=1, max_size=5), min_size=1, max_size=4)


def first_match(text: str, stops: list[str]) -> tuple[int, str] | None:
    """Where the first stop string is complete, and which: the plain twin of the automaton."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return end - len(longest), longest
    return None


@given(pieces=some.lists(letters, max_size=6), stops=stop_lists)
def test_the_text_before_the_first_complete_stop_string_is_shown(pieces: list[str], stops: list[str]):
    matcher = StopStrings(stops)
    shown = "".join([matcher.put(piece)[0] for piece in pieces])
    stop = matcher.matched
    expected = first_match("".join(pieces), stops)
    assert stop == (None if expected is None else expected[1])
    whole = "".join(pieces) if expected is None else "".join(pieces)[: expected[0]]
    assert shown + ("" if stop else matcher.end()) == whole


@given(pieces=some.lists(letters, max_size=6), stops=stop_lists)
def test_no_more_is_held_than_may_become_a_stop_string(pieces: list[str], stops: list[str]):
    matcher, shown, text = StopStrings(stops), "", ""
    for piece in pieces:
        more, stop = matcher.put(piece)
        shown, text = shown + more, text + piece
        if stop is not None:
            return
        held = text[len(shown) :]
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)
        assert not any(text.endswith(stop[:size]) for stop in stops for size in range(len(held) + 1, len(stop)))


def test_of_two_that_end_together_the_longer_is_taken():
    assert StopStrings(["b", "ab"]).put("xab") == ("x", "ab")


def test_a_stop_string_may_span_many_pieces_and_nothing_follows_it():
    matcher = StopStrings("</answer>")
    shown = [matcher.put(piece) for piece in ("4", "2<", "/", "ans", "wer", ">", " and")]
    assert shown == [("4", None), ("2", None), ("", None), ("", None), ("", None), ("", "</answer>"), ("", "</answer>")]


def test_one_automaton_serves_many_rows():
    automaton = StopAutomaton(["\n\n", "###"])
    rows = [StopStrings(automaton) for _ in range(3)]
    assert [row.put(piece) for row, piece in zip(rows, ("a\n", "\n\nb", "##"), strict=True)] == [
        ("a", None), ("", "\n\n"), ("", None),
    ]  # fmt: skip


def test_long_texts_and_repetitive_stop_strings_cost_linear_steps():
    matcher = StopStrings("a" * 1000 + "b")
    shown, stop = matcher.put("a" * 200_000)
    assert (len(shown), stop) == (199_000, None)
    assert matcher.put("b") == ("", "a" * 1000 + "b")


@pytest.mark.parametrize("stops", ["", [""], [1], ["a", ""]])
def test_empty_stop_strings_are_refused(stops):
    with pytest.raises(ArgumentError, match="`stop_strings`"):
        StopStrings(stops)
