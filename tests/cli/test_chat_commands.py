"""What is said to the chat changes the session and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabula.cli.chat_commands import COMMANDS, Session, command
from fabula.cli.conversation import Conversation
from fabula.errors import ArgumentError

SESSION = Session("model", Conversation("be brief").said("user", "hi").said("assistant", "hello"))


def test_help_names_every_command():
    assert all(name in command(SESSION, "/help")[1] for name in COMMANDS)


def test_clear_forgets_the_turns_and_keeps_the_instruction():
    assert command(SESSION, "/clear")[0].conversation == Conversation("be brief")


def test_system_sets_and_removes_the_instruction():
    assert command(SESSION, "/system speak French")[0].conversation.system == "speak French"
    assert command(SESSION, "/system")[0].conversation.system is None
    assert command(SESSION, "/system x")[0].conversation.turns == SESSION.conversation.turns


def test_set_reads_a_field_and_unset_forgets_it():
    warm, told = command(SESSION, "/set temperature 0.5")
    assert warm.settings == {"temperature": 0.5}
    assert told == "temperature = 0.5"
    assert command(warm, "/set temperature")[0].settings == {}
    assert command(SESSION, "/set max-new-tokens 5")[0].settings == {"max_new_tokens": 5}


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("/set warmth 1", "warmth"),
        ("/set temperature hot", "temperature"),
        ("/set temperature -1", "temperature"),
        ("/nonsense", "/help"),
        ("/save", "/save"),
        ("/load /no/such/file", "/no/such/file"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(line: str, names: str):
    with pytest.raises(ArgumentError, match=names):
        command(SESSION, line)


def test_show_tells_the_settings_and_the_instruction():
    told = command(command(SESSION, "/set top_k 5")[0], "/show")[1]
    assert "be brief" in told
    assert "top_k = 5" in told


def test_a_saved_conversation_is_loaded_whole(tmp_path: Path):
    file = tmp_path / "talk.json"
    command(SESSION, f"/save {file}")
    loaded, _ = command(Session("model", Conversation()), f"/load {file}")
    assert loaded.conversation == SESSION.conversation


def test_a_file_that_is_no_conversation_is_refused(tmp_path: Path):
    file = tmp_path / "other.json"
    file.write_text('{"messages": [{"role": "user"}]}')
    with pytest.raises(ArgumentError, match="messages"):
        command(SESSION, f"/load {file}")


@pytest.mark.parametrize("line", ["/bye", "/exit"])
def test_bye_and_exit_end_the_chat(line: str):
    assert command(SESSION, line)[0].over
