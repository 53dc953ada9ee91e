"""Token healing: a prompt's last token is chosen again, as where a prompt ends its tokens may be cut otherwise.

"The link is <a href="http:" ends in a token ":", after which a model that has always seen "://" as one token cannot go
on well. So the prompt loses its last token, and the row's first new one is chosen from those that begin with its text,
in the same generation (`processors/healing.py`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fabula.errors import ArgumentError
from fabula.processors.healing import TokenHealingLogitsProcessor

__all__ = ["Healed", "Healer", "heal"]

LAST_CHARACTER = "\U0010ffff"


class Vocabulary(Protocol):
    """All that healing needs of a tokenizer."""

    @property
    def all_special_ids(self) -> Sequence[int]: ...

    def get_vocab(self) -> Mapping[str, int]: ...

    def decode(self, token_ids: Any, /, skip_special_tokens: bool = ...) -> str: ...

    def encode(self, text: str, /, *, add_special_tokens: bool = ...) -> Any: ...


@dataclass(frozen=True, slots=True)
class Healed:
    """A prompt to begin with, and what heals it."""

    prompt: np.ndarray  # Int["P"]: without the token that is chosen again, if `processors` holds anything
    processors: tuple[TokenHealingLogitsProcessor, ...] = ()  # at most one; they come before all but guidance

    @property
    def dropped(self) -> int:
        """How many tokens of the prompt are generated again: so many more may be new."""
        return len(self.processors)


class Healer:
    """Heals prompts of one tokenizer, whose vocabulary it sorts once."""

    def __init__(self, tokenizer: Vocabulary) -> None:
        """Raises ArgumentError where there is no tokenizer."""
        if tokenizer is None:
            raise ArgumentError(
                "`tokenizer` must be given for token_healing=True, got None. Pass tokenizer= to generate(), or load "
                "the model with its own."
            )
        self.tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        spelled = {token: text for text, token in tokenizer.get_vocab().items() if token not in self._special}
        self._spelled = spelled
        self._sorted = sorted((text, token) for token, text in spelled.items())

    def heal(self, prompt: Any) -> Healed:
        """The prompt Int["P"] without the token to choose again; white space around its text is taken off first.

        Left as it is: what has no other token that begins as its last does, ends in a special token, or holds nothing
        but one token. Where special tokens stand inside, as in a chat, white space stays.
        """
        ids = self._stripped([int(token) for token in prompt])
        healed = np.array(ids, dtype=np.int32)
        extensions = self.extensions(ids[-1]) if len(ids) > 1 else []
        if len(extensions) < 2:
            return Healed(healed)
        return Healed(healed[:-1], (TokenHealingLogitsProcessor(len(ids) - 1, ids[-1], extensions),))

    def extensions(self, token: int) -> list[int]:
        """The tokens whose spelling begins with this one's, itself included; none for a special one."""
        text = self._spelled.get(token)
        if text is None:
            return []
        first, last = (bisect_left(self._sorted, (end, -1)) for end in (text, text + LAST_CHARACTER))
        return [found for _, found in self._sorted[first:last]]

    def _stripped(self, ids: list[int]) -> list[int]:
        """The ids of the text without white space around it; special tokens in front of it stay."""
        front = next((place for place, token in enumerate(ids) if token not in self._special), len(ids))
        if any(token in self._special for token in ids[front:]):
            return ids
        text = self.tokenizer.decode(ids[front:], skip_special_tokens=True).strip()
        again = [int(token) for token in self.tokenizer.encode(text, add_special_tokens=False)] if text else []
        return ids[:front] + again if again else ids


def heal(prompt: Any, tokenizer: Vocabulary) -> Healed:
    """One prompt healed; a Healer does several with less work."""
    return Healer(tokenizer).heal(prompt)
