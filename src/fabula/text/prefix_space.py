"""`add_prefix_space`: whether a text is encoded as if a space stood before it, so that its first word is one within."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from fabula.errors import NotSupportedError
from fabula.text.protocol import AnyTokenizer


class PrefixSpace:
    """An attribute of a Tokenizer. It may be set where the vocabulary's bytes are cut in one step, as GPT-2's are."""

    def __get__(self, tokenizer: AnyTokenizer | None, owner: type | None = None) -> Any:
        if tokenizer is None:
            return self
        step = _byte_step(tokenizer.backend_tokenizer)
        return step is not None and bool(step.add_prefix_space)

    def __set__(self, tokenizer: AnyTokenizer, value: bool) -> None:
        step = _byte_step(tokenizer.backend_tokenizer)
        if step is not None:
            step.add_prefix_space = bool(value)
        elif value:
            raise NotSupportedError(
                "`add_prefix_space` must be False for a tokenizer that cuts text in other ways than GPT-2's, got True. "
                "Put the space into the text: tokenizer(' ' + text)."
            )


def _byte_step(backend: Tokenizer) -> Any:
    """The step that can put a space first, if it is the only one."""
    step = backend.pre_tokenizer
    return step if isinstance(step, pre_tokenizers.ByteLevel) else None
