"""Errors become one line and an exit code that says of what kind they are."""

from __future__ import annotations

import warnings

import pytest

from fabula.cli.failures import reported
from fabula.cli.main import COMMANDS, hyphenated, main
from fabula.errors import ArgumentError, CancelledError, DownloadError, ModelFileError, OutOfMemoryError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ArgumentError("`x` must be 1"), 2),
        (ModelFileError("a.gguf is cut short"), 3),
        (DownloadError("no network"), 3),
        (OutOfMemoryError("the cache does not fit"), 4),
        (MemoryError(), 4),
        (KeyboardInterrupt(), 130),
        (CancelledError("stopped"), 130),
        (ValueError("a bug"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_the_exit_code_says_what_kind_of_error_it_was(error: BaseException, code: int, capsys):
    with reported() as outcome:
        raise error
    output = capsys.readouterr()
    assert outcome.code == code
    assert output.out == ""
    assert output.err.startswith("fabula: ")
    assert output.err.count("\n") == 1


def test_an_error_of_several_lines_is_told_in_one(capsys):
    with reported():
        raise ArgumentError("first\n  second")
    assert capsys.readouterr().err == "fabula: first second\n"


def test_a_bug_names_its_type_and_how_to_see_more(capsys):
    with reported():
        raise ZeroDivisionError("division by zero")
    assert "ZeroDivisionError" in (told := capsys.readouterr().err)
    assert "--debug" in told


def test_debug_shows_the_traceback(capsys):
    with reported(debug=True):
        raise ArgumentError("wrong")
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line_without_the_code_that_raised_it(capsys):
    with reported() as outcome:
        warnings.warn("take care", stacklevel=1)
    assert outcome.code == 0
    assert capsys.readouterr().err == "fabula: warning: take care\n"


def test_success_is_zero():
    with reported() as outcome:
        pass
    assert outcome.code == 0


@pytest.mark.parametrize(
    "words",
    [[], ["nonsense"], ["generate", "--no-such-flag", "x"], ["tokenize", "--ids", "--count", "x"]],
    ids=" ".join,
)
def test_a_wrong_usage_is_two(words: list[str], capsys):
    assert main(words) == 2
    assert "usage: fabula" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys):
    assert main([name, "--help"]) == 0
    assert "--debug" in capsys.readouterr().out


def test_options_may_be_spelled_as_in_python():
    assert hyphenated("--max_new_tokens=5_000") == "--max-new-tokens=5_000"
    assert hyphenated("snake_case") == "snake_case"
