"""The special tokens that have a name: bos, eos, unk, sep, pad, cls, mask; each a text and an id of the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fabula.errors import ArgumentError, ModelFileError
from fabula.text.protocol import AnyTokenizer

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def token_text(value: Any, name: str, source: str) -> str | None:
    """The text of a token as configuration files write it: a string, an object with `content`, or null."""
    content = value.get("content") if isinstance(value, Mapping) else getattr(value, "content", value)
    if content is not None and not isinstance(content, str):
        raise ModelFileError(
            f"`{name}` of {source} must be a string or an object with `content`, got {type(value).__name__}. "
            "Correct tokenizer_config.json."
        )
    return content


class NamedToken:
    """An attribute of a Tokenizer: a special token's text, or None. It may only be set to a token that exists."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, tokenizer: AnyTokenizer | None, owner: type | None = None) -> Any:
        return self if tokenizer is None else tokenizer.special_tokens.get(self.name)

    def __set__(self, tokenizer: AnyTokenizer, value: Any) -> None:
        if value is None:
            tokenizer.special_tokens.pop(self.name, None)
            return
        text = getattr(value, "content", value)
        if not isinstance(text, str):
            raise ArgumentError(f"`{self.name}` must be a token's text, got {value!r}. Use `{self.name}_id` for an id.")
        if tokenizer.backend_tokenizer.token_to_id(text) is None:
            raise ArgumentError(
                f"`{self.name}` must be in the vocabulary, got {text!r}. "
                f"Use tokenizer.add_special_tokens({{{self.name!r}: {text!r}}}) to add it."
            )
        tokenizer.special_tokens[self.name] = text


class NamedTokenId:
    """An attribute of a Tokenizer: a special token's id, or None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name.removesuffix("_id")

    def __get__(self, tokenizer: AnyTokenizer | None, owner: type | None = None) -> Any:
        if tokenizer is None:
            return self
        text = tokenizer.special_tokens.get(self.name)
        return None if text is None else tokenizer.backend_tokenizer.token_to_id(text)

    def __set__(self, tokenizer: AnyTokenizer, value: int | None) -> None:
        text = None if value is None else tokenizer.backend_tokenizer.id_to_token(int(value))
        if value is not None and text is None:
            raise ArgumentError(f"`{self.name}_id` must be an id of the vocabulary, got {value}.")
        setattr(tokenizer, self.name, text)
