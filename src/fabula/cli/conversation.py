"""A conversation: what was said by whom, and what of it the model is given."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fabula.errors import ArgumentError

Message = dict[str, str]  # {"role": ..., "content": ...}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order, and the instruction that stands before them."""

    system: str | None = None
    turns: tuple[Message, ...] = ()

    @property
    def messages(self) -> list[Message]:
        """What a chat template is given."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        return [*head, *self.turns]

    def said(self, role: str, content: str) -> Conversation:
        """With one more turn."""
        return replace(self, turns=(*self.turns, {"role": role, "content": content}))


def prompt_ids(tokenizer: Any, conversation: Conversation) -> list[int]:
    """The ids of the conversation in the model's own chat format, ready for its answer."""
    text = tokenizer.apply_chat_template(conversation.messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def save_conversation(conversation: Conversation, path: Path) -> None:
    """Writes the messages as JSON."""
    text = json.dumps({"messages": conversation.messages}, ensure_ascii=False, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def load_conversation(path: Path) -> Conversation:
    """Reads what save_conversation wrote. Raises ArgumentError for anything else."""
    try:
        messages = json.loads(path.read_text(encoding="utf-8"))["messages"]
        turns = [{"role": str(message["role"]), "content": str(message["content"])} for message in messages]
    except OSError as error:
        raise ArgumentError(f"{path} must be a file that can be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f'{path} must hold {{"messages": [...]}} as /save writes it, got: {error}.') from error
    system = turns.pop(0)["content"] if turns and turns[0]["role"] == "system" else None
    return Conversation(system, tuple(turns))
