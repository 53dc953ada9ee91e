"""From files to what a Tokenizer consists of: the tokenizers library's object and the settings around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing

from fabula.errors import ModelFileError
from fabula.text.files import TokenizerFiles
from fabula.text.gguf_vocabulary import read_vocabulary
from fabula.text.padding import UNBOUNDED
from fabula.text.special_tokens import NAMES, token_text

ChatTemplates = str | dict[str, str] | None


@dataclass(frozen=True)
class Parts:
    """What a Tokenizer is made of."""

    backend: tokenizers.Tokenizer
    special_tokens: dict[str, str]  # "bos_token" -> its text
    extra_special_tokens: tuple[str, ...] = ()  # special tokens without a name
    padding_side: str = "right"
    truncation_side: str = "right"
    model_max_length: int = UNBOUNDED  # tokens
    chat_template: ChatTemplates = None  # one, or by name
    clean_up_tokenization_spaces: bool = False
    model_input_names: tuple[str, ...] = ("input_ids", "attention_mask")
    source: str = ""


def build(files: TokenizerFiles) -> Parts:
    """The parts that `files` describe; raises ModelFileError naming the file and field that cannot be used."""
    if files.tokenizer_json is not None:
        return _from_json(files)
    if files.gguf is not None:
        return _from_gguf(files, files.gguf)
    raise ModelFileError(
        f"{files.source or 'The model'} must hold tokenizer.json or a GGUF file's vocabulary, got neither. A "
        "SentencePiece tokenizer.model alone must be converted first: "
        "transformers.AutoTokenizer.from_pretrained(directory).save_pretrained(directory)."
    )


def _from_gguf(files: TokenizerFiles, metadata: Mapping[str, Any]) -> Parts:
    source = files.source or "the GGUF file"
    vocabulary = read_vocabulary(metadata, source)
    named = dict(vocabulary.named)
    _finish_text(vocabulary.backend, named, vocabulary.add_bos, vocabulary.add_eos)
    template = files.chat_template or metadata.get("tokenizer.chat_template")
    return Parts(vocabulary.backend, named, chat_template=template, source=files.source)


def _from_json(files: TokenizerFiles) -> Parts:
    """tokenizer.json says what is put around a text: the config's add_bos_token does not count, as in transformers."""
    source, config = files.source or "the model", files.tokenizer_config
    try:
        backend = tokenizers.Tokenizer.from_str(files.tokenizer_json or "")
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise ModelFileError(f"tokenizer.json of {source} cannot be read: {error}. Fetch the file again.") from error
    padding, truncation = backend.padding or {}, backend.truncation or {}
    backend.no_padding()
    backend.no_truncation()
    named, extra = _special_tokens(files, source)
    if "pad_token" in padding:
        named.setdefault("pad_token", padding["pad_token"])
    _add_missing(backend, config, named, extra, source)
    return Parts(
        backend,
        named,
        extra,
        padding_side=_side(config, "padding_side", padding.get("direction", "right"), source),
        truncation_side=_side(config, "truncation_side", truncation.get("direction", "right"), source),
        model_max_length=_max_length(config, source),
        chat_template=files.chat_template or _templates(config.get("chat_template"), source),
        clean_up_tokenization_spaces=bool(config.get("clean_up_tokenization_spaces", False)),
        model_input_names=tuple(config.get("model_input_names") or ("input_ids", "attention_mask")),
        source=files.source,
    )


def _special_tokens(files: TokenizerFiles, source: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The named special tokens and the others; special_tokens_map.json counts where the config says nothing."""
    texts = [*(files.special_tokens_map or {}).items(), *files.tokenizer_config.items()]
    named = {name: text for name, value in texts if name in NAMES and (text := token_text(value, name, source))}
    extra: dict[str, None] = {}
    for name, value in texts:
        if name in ("additional_special_tokens", "extra_special_tokens") and value:
            items = value.values() if isinstance(value, Mapping) else value
            extra.update(dict.fromkeys(text for item in items if (text := token_text(item, name, source))))
    return {name: named[name] for name in NAMES if name in named}, tuple(extra)


def _add_missing(
    backend: tokenizers.Tokenizer, config: Mapping[str, Any], named: dict[str, str], extra: tuple[str, ...], source: str
) -> None:
    """Adds the tokens that only the config knows: its added_tokens_decoder in the order of ids, then special ones."""
    present = {token.content for token in backend.get_added_tokens_decoder().values()}
    listed = config.get("added_tokens_decoder") or {}
    added: list[AddedToken] = []
    for token_id in sorted(listed, key=int):
        fields = {name: listed[token_id].get(name, False) for name in ("single_word", "lstrip", "rstrip", "normalized")}
        text = token_text(listed[token_id], f"added_tokens_decoder[{token_id}]", source)
        if text and text not in present:
            special = bool(listed[token_id].get("special")) or text in named.values()
            added.append(AddedToken(text, special=special, **fields))
            present.add(text)
    for text in dict.fromkeys((*named.values(), *extra)):
        if text not in present:
            added.append(AddedToken(text, special=True, normalized=False))
    if added:
        backend.add_tokens(added)


def _finish_text(backend: tokenizers.Tokenizer, named: dict[str, str], add_bos: bool, add_eos: bool) -> None:
    """From now on `backend` puts the beginning- and end-of-text tokens around a text, where there are such."""
    first = named.get("bos_token") if add_bos else None
    last = named.get("eos_token") if add_eos else None
    single = [*([f"{first}:0"] if first else []), "$A:0", *([f"{last}:0"] if last else [])]
    pair = [*single, *(piece.replace(":0", ":1").replace("$A", "$B") for piece in single)]
    special = [(token, backend.token_to_id(token)) for token in dict.fromkeys((first, last)) if token]
    backend.post_processor = TemplateProcessing(single=single, pair=pair, special_tokens=special)


def _side(config: Mapping[str, Any], name: str, default: str, source: str) -> str:
    side = str(config.get(name, default)).lower()
    if side not in ("left", "right"):
        raise ModelFileError(f"`{name}` in tokenizer_config.json of {source} must be 'left' or 'right', got {side!r}.")
    return side


def _max_length(config: Mapping[str, Any], source: str) -> int:
    value = config.get("model_max_length")
    if value is None:
        return UNBOUNDED
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ModelFileError(
            f"`model_max_length` in tokenizer_config.json of {source} must be a positive number, got {value!r}."
        )
    return int(value)


def _templates(value: Any, source: str) -> ChatTemplates:
    """The config's template: a text, or a list of named ones."""
    if value is None or isinstance(value, str):
        return value
    try:
        return {str(entry["name"]): str(entry["template"]) for entry in value}
    except (TypeError, KeyError) as error:
        raise ModelFileError(
            f"`chat_template` in tokenizer_config.json of {source} must be a string or a list of objects with `name` "
            f"and `template`, got {type(value).__name__}."
        ) from error
