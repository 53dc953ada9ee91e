"""A turn is a line, or the lines between two marks of three quotes."""

from __future__ import annotations

import io

import pytest

from fabula.cli.turns import Turns


def turns_of(text: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    turns = Turns()
    return list(iter(turns.next, None))


def test_each_line_is_a_turn_and_empty_ones_are_none(monkeypatch):
    assert turns_of("one\n\n  \ntwo\n", monkeypatch) == ["one", "two"]


def test_three_quotes_hold_lines_together(monkeypatch):
    assert turns_of('"""\nfirst\n\nsecond\n"""\nnext\n', monkeypatch) == ["first\n\nsecond", "next"]
    assert turns_of('"""one line"""\n', monkeypatch) == ["one line"]
    assert turns_of('"""begins here\nends here"""\n', monkeypatch) == ["begins here\nends here"]


def test_a_text_that_never_closes_ends_the_input(monkeypatch):
    assert turns_of('"""\nnever closed\n', monkeypatch) == []
