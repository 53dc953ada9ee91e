"""Every field of GenerationConfig is a flag, and a flag's text becomes the value that Python would be given."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from fabula.cli.generation_flags import add_generation_flags, generation_settings, given_settings, read_setting
from fabula.generation.settings.fields import FIELDS


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_generation_flags(parser)
    return parser.parse_args(words)


def test_every_field_has_a_flag():
    parser = argparse.ArgumentParser()
    add_generation_flags(parser)
    flags = {action.dest for action in parser._actions}
    assert set(FIELDS) <= flags


def test_nothing_given_is_nothing_set_but_the_command_lines_length():
    assert given_settings(parsed()) == {}
    assert generation_settings(parsed()) == {"max_new_tokens": 256}
    assert generation_settings(parsed("--max-length", "40")) == {"max_length": 40}


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--do-sample"], {"do_sample": True}),
        (["--no-do-sample"], {"do_sample": False}),
        (["--temperature", "0.7"], {"temperature": 0.7}),
        (["--temperature", "0"], {"temperature": 0}),
        (["--top-k", "none"], {"top_k": None}),
        (["--eos-token-id", "2"], {"eos_token_id": 2}),
        (["--eos-token-id", "2,5"], {"eos_token_id": [2, 5]}),
        (["--stop-strings", "a", "--stop-strings", "b"], {"stop_strings": ["a", "b"]}),
        (["--seed", "7"], {"seed": 7}),
        (["--seed", "[7, 8]"], {"seed": [7, 8]}),
        (["--early-stopping", "never"], {"early_stopping": "never"}),
        (["--bad-words-ids", "[[1, 2]]"], {"bad_words_ids": [[1, 2]]}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_flag_is_read_as_its_field_means(words: list[str], settings: dict[str, Any]):
    assert given_settings(parsed(*words)) == settings


@pytest.mark.parametrize("words", [("--top-k", "many"), ("--temperature", "warm"), ("--eos-token-id", "2;5")])
def test_a_text_that_is_no_value_is_a_usage_error(words: tuple[str, str], capsys):
    with pytest.raises(SystemExit, match="2"):
        parsed(*words)
    assert words[1] in capsys.readouterr().err


def test_a_chat_reads_settings_as_the_flags_do():
    assert read_setting("do_sample", "yes") is True
    assert read_setting("temperature", "0.5") == 0.5
    assert read_setting("stop_strings", "end") == ["end"]
    assert read_setting("top_k", "none") is None
    with pytest.raises(ValueError, match="maybe"):
        read_setting("do_sample", "maybe")
