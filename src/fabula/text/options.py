"""What a call of the tokenizer was given: texts that are texts, and no option that would be dropped silently."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from fabula.errors import ArgumentError, NotSupportedError, UnknownArgumentError

KNOWN = (
    "text",
    "add_special_tokens",
    "padding",
    "truncation",
    "max_length",
    "pad_to_multiple_of",
    "padding_side",
    "return_tensors",
    "return_token_type_ids",
    "return_attention_mask",
    "return_special_tokens_mask",
    "return_offsets_mapping",
    "return_length",
    "split_special_tokens",
    "verbose",
)

# Options of transformers that are not done here: allowed at the value that changes nothing.
_UNUSED: Mapping[str, Any] = MappingProxyType(
    {
        "text_target": None,
        "text_pair_target": None,
        "stride": 0,
        "is_split_into_words": False,
        "return_overflowing_tokens": False,
    }
)


def refuse_options(others: Mapping[str, Any], text_pair: Any) -> None:
    """Raises for every option that nothing reads, and for known ones that are not done here."""
    if text_pair is not None:
        raise NotSupportedError(
            "`text_pair` must be None, as generation has no pairs of texts. Give a list of texts to encode several."
        )
    for name, value in others.items():
        if name == "verbose":
            continue
        if name not in _UNUSED:
            near = get_close_matches(name, (*KNOWN, *_UNUSED), n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise UnknownArgumentError(f"The tokenizer has no argument `{name}`.{hint}")
        if value != _UNUSED[name]:
            raise NotSupportedError(f"`{name}` must be {_UNUSED[name]!r}, got {value!r}: it is not supported here.")


def check_texts(text: Any) -> tuple[list[str], bool]:
    """The texts as a list, and whether a single one was given."""
    if isinstance(text, str):
        return [text], True
    if isinstance(text, list | tuple):
        wrong = next((place for place, item in enumerate(text) if not isinstance(item, str)), None)
        if wrong is None:
            return list(text), False
        raise ArgumentError(f"`text[{wrong}]` must be a string, got {type(text[wrong]).__name__}: {text[wrong]!r:.80}.")
    raise ArgumentError(f"`text` must be a string or a list of strings, got {type(text).__name__}.")
