"""A tokenizer as files of a Hugging Face directory, which transformers' AutoTokenizer reads to the same ids."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

from fabula.errors import ArgumentError
from fabula.text.protocol import AnyTokenizer


def save(tokenizer: AnyTokenizer, directory: str | PathLike[str]) -> tuple[str, ...]:
    """Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json and the templates; gives their paths."""
    folder = Path(directory)
    if folder.is_file():
        raise ArgumentError(f"`save_directory` must be a directory, got the file {folder}.")
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "tokenizer.json": tokenizer.backend_tokenizer.to_str(pretty=True),
        "tokenizer_config.json": _json(_config(tokenizer)),
        "special_tokens_map.json": _json(_special_tokens(tokenizer)),
        **_templates(tokenizer),
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tuple(str(folder / name) for name in texts)


def _config(tokenizer: AnyTokenizer) -> dict[str, Any]:
    extra = {"extra_special_tokens": tokenizer.extra_special_tokens} if tokenizer.extra_special_tokens else {}
    return {
        # The class of transformers that takes tokenizer.json as it is, whatever the model.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "backend": "tokenizers",
        "clean_up_tokenization_spaces": tokenizer.clean_up_tokenization_spaces,
        "model_input_names": tokenizer.model_input_names,
        "model_max_length": tokenizer.model_max_length,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        **tokenizer.special_tokens_map,
        **extra,
    }


def _special_tokens(tokenizer: AnyTokenizer) -> dict[str, Any]:
    extra = {"additional_special_tokens": tokenizer.extra_special_tokens} if tokenizer.extra_special_tokens else {}
    return {**tokenizer.special_tokens_map, **extra}


def _templates(tokenizer: AnyTokenizer) -> dict[str, str]:
    """chat_template.jinja, and further named ones in additional_chat_templates/."""
    template = tokenizer.chat_template
    if template is None:
        return {}
    if isinstance(template, str):
        return {"chat_template.jinja": template}
    files = {f"additional_chat_templates/{name}.jinja": text for name, text in template.items() if name != "default"}
    return files | ({"chat_template.jinja": template["default"]} if "default" in template else {})


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
