"""Chats as prompts: apply_chat_template."""

from typing import Any


def apply_chat_template(*a: Any, **k: Any) -> Any:
    raise NotImplementedError


def choose_template(*a: Any) -> Any:
    raise NotImplementedError
