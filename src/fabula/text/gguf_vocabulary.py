"""A GGUF file's `tokenizer.ggml.*` metadata as a tokenizer of the tokenizers library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer

from fabula.errors import ModelFileError
from fabula.text import byte_level, sentencepiece, unigram
from fabula.text.pre_tokenizers import find_cut

# Values of tokenizer.ggml.token_type.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6

# The special tokens' names and the metadata keys of their ids ("seperator" is the format's own spelling).
_NAMED_IDS: Mapping[str, str] = MappingProxyType(
    {
        "bos_token": "bos_token_id",
        "eos_token": "eos_token_id",
        "unk_token": "unknown_token_id",
        "sep_token": "seperator_token_id",
        "pad_token": "padding_token_id",
        "cls_token": "cls_token_id",
        "mask_token": "mask_token_id",
    }
)


@dataclass(frozen=True)
class GGUFVocabulary:
    """What the metadata say, ready to be a Tokenizer."""

    backend: Tokenizer
    named: Mapping[str, str]  # "bos_token" -> its text, for those that the file names
    add_bos: bool
    add_eos: bool


def read_vocabulary(metadata: Mapping[str, Any], source: str) -> GGUFVocabulary:
    """The tokenizer that `metadata` describe; raises ModelFileError naming the field that does not."""
    tokens = _list(metadata, "tokens", source)
    types = metadata.get("tokenizer.ggml.token_type")
    types = [_NORMAL] * len(tokens) if types is None else [int(kind) for kind in types]
    if len(types) != len(tokens):
        raise ModelFileError(
            f"`tokenizer.ggml.token_type` of {source} must have one entry a token, got {len(types)} for "
            f"{len(tokens)} tokens. The file is damaged: fetch it again."
        )
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "t5":
        tokens, types = _without_filling(tokens, types)
    named = _named(metadata, tokens, source)
    try:
        if kind == "gpt2":
            backend, starts_text = _byte_level(metadata, tokens, types, source)
        elif kind == "llama":
            backend, starts_text = _sentencepiece(metadata, tokens, types, named.get("unk_token")), True
        elif kind == "t5":
            backend, starts_text = _unigram(metadata, tokens, types, named, source), False
        else:
            raise ModelFileError(
                f"`tokenizer.ggml.model` of {source} must be 'gpt2', 'llama' or 't5', got {kind!r}. "
                "Load the model from its Hugging Face directory instead."
            )
    except ModelFileError:
        raise
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise ModelFileError(f"The vocabulary of {source} cannot be used: {error}. Fetch the file again.") from error
    _add_whole_tokens(backend, tokens, types)
    add_bos = bool(metadata.get("tokenizer.ggml.add_bos_token", starts_text))
    add_eos = bool(metadata.get("tokenizer.ggml.add_eos_token", kind == "t5"))
    return GGUFVocabulary(backend, named, add_bos, add_eos)


def _list(metadata: Mapping[str, Any], key: str, source: str) -> Sequence[Any]:
    values = metadata.get(f"tokenizer.ggml.{key}")
    if values is None or len(values) == 0:
        raise ModelFileError(
            f"`tokenizer.ggml.{key}` of {source} must be a list that is not empty, got nothing. "
            "The file holds no tokenizer: load one from the model's Hugging Face directory."
        )
    return values


def _named(metadata: Mapping[str, Any], tokens: Sequence[str], source: str) -> dict[str, str]:
    """The special tokens' texts, their ids checked against the vocabulary."""
    named = {}
    for name, key in _NAMED_IDS.items():
        token_id = metadata.get(f"tokenizer.ggml.{key}")
        if token_id is None:
            continue
        if not 0 <= int(token_id) < len(tokens):
            raise ModelFileError(
                f"`tokenizer.ggml.{key}` of {source} must be in [0, {len(tokens)}), got {token_id}. "
                "The file is damaged: fetch it again."
            )
        named[name] = tokens[int(token_id)]
    return named


def _byte_level(
    metadata: Mapping[str, Any], tokens: Sequence[str], types: list[int], source: str
) -> tuple[Tokenizer, bool]:
    cut = find_cut(metadata.get("tokenizer.ggml.pre") or "default", source)
    whole = frozenset(place for place, kind in enumerate(types) if kind in (_CONTROL, _USER_DEFINED))
    merges = _list(metadata, "merges", source)
    return byte_level.build(tokens, whole, merges, cut, source), cut.starts_text


def _sentencepiece(
    metadata: Mapping[str, Any], tokens: Sequence[str], types: list[int], unknown: str | None
) -> Tokenizer:
    learned, given = (np.flatnonzero(np.array(types) == kind) for kind in (_NORMAL, _USER_DEFINED))
    scores = metadata.get("tokenizer.ggml.scores")
    merges = metadata.get("tokenizer.ggml.merges")
    prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    return sentencepiece.build(tokens, scores, merges, learned, given, unknown, prefix)


def _without_filling(tokens: Sequence[str], types: list[int]) -> tuple[Sequence[str], list[int]]:
    """T5's tokens and their types, the blanks among them, without what follows to fill the table."""
    tokens, blanks = unigram.named_blanks(tokens)
    types = [_CONTROL if token in blanks else kind for token, kind in zip(tokens, types, strict=True)]
    used = [place for place, kind in enumerate(types) if kind != _UNUSED]
    size = used[-1] + 1 if used else 0
    return tokens[:size], types[:size]


def _unigram(
    metadata: Mapping[str, Any], tokens: Sequence[str], types: list[int], named: dict[str, str], source: str
) -> Tokenizer:
    """T5's; the token for what is unknown is named by its type where no key names it."""
    scores = _list(metadata, "scores", source)[: len(tokens)]
    if "unk_token" not in named and _UNKNOWN in types:
        named["unk_token"] = tokens[types.index(_UNKNOWN)]
    if len(scores) < len(tokens) or "unk_token" not in named:
        raise ModelFileError(
            f"`tokenizer.ggml.tokens` of {source} must have a score each and one of them be unknown (type {_UNKNOWN}), "
            f"got {len(scores)} scores for {len(tokens)} tokens. The file is damaged: fetch it again."
        )
    return unigram.build(
        tokens,
        scores,
        tokens.index(named["unk_token"]),
        metadata.get("tokenizer.ggml.precompiled_charsmap"),
        bounded=bool(metadata.get("tokenizer.ggml.remove_extra_whitespaces", True)),
        add_space_prefix=bool(metadata.get("tokenizer.ggml.add_space_prefix", True)),
    )


def _add_whole_tokens(backend: Tokenizer, tokens: Sequence[str], types: list[int]) -> None:
    """Control and user-defined tokens are found in text before anything else; the first are special."""
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL and token]
    given = [token for token, kind in zip(tokens, types, strict=True) if kind == _USER_DEFINED and token]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    known = [token for token in given if backend.token_to_id(token) is not None]  # runs of spaces are spelled "▁"
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in known])
