"""A Hugging Face directory: which files it has, and what they hold. No code in it is ever run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fabula.errors import ModelFileError
from fabula.hub.directory_names import StandardNames
from fabula.hub.json_text import read_object, read_text
from fabula.hub.safetensors import read_safetensors, read_sharded
from fabula.quant.formats import StoredTensor
from fabula.text.files import TokenizerFiles

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
WEIGHTS, SHARDS = "model.safetensors", "model.safetensors.index.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
SPECIAL_TOKENS, TEMPLATE, OLD_TEMPLATE = "special_tokens_map.json", "chat_template.jinja", "chat_template.json"
MOST_TOKENIZER = 512 << 20  # bytes of tokenizer.json
MOST_TEMPLATE = 4 << 20  # bytes
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# What is fetched from a repository, by what is wanted of it
CONFIG_FILES = (CONFIG, GENERATION_CONFIG)
TOKENIZER_FILES = (TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS, TEMPLATE, OLD_TEMPLATE)
WEIGHT_FILES = (WEIGHTS, SHARDS, "model-*.safetensors")


def read_config(directory: Path) -> dict[str, Any]:
    """config.json."""
    if not (directory / CONFIG).is_file():
        ggufs = sorted(file.name for file in directory.glob("*.gguf"))
        hint = f"Name one of its files: {', '.join(ggufs[:5])}." if ggufs else "Name the directory of a model."
        raise ModelFileError(f"{directory} must hold {CONFIG}, and does not. {hint}")
    return read_object(directory / CONFIG)


def read_generation_config(directory: Path) -> dict[str, Any] | None:
    """generation_config.json; None where there is none."""
    return _optional_object(directory / GENERATION_CONFIG)


def read_weights(directory: Path) -> Mapping[str, StoredTensor]:
    """The weights of model.safetensors, or of the files that its index names."""
    if (directory / WEIGHTS).is_file():
        return StandardNames(read_safetensors(directory / WEIGHTS))
    if (directory / SHARDS).is_file():
        return StandardNames(read_sharded(directory / SHARDS))
    pickles = sorted(file.name for pattern in PICKLES for file in directory.glob(pattern))
    if pickles:
        raise ModelFileError(f"{directory / pickles[0]} {PICKLE_ADVICE}")
    raise ModelFileError(f"{directory} must hold {WEIGHTS} or {SHARDS}, and does not. Fetch or save the model again.")


PICKLE_ADVICE = (
    "must not be a pickle: reading one can run any code. Convert the model where you trust it, with transformers: "
    'AutoModelForCausalLM.from_pretrained("it").save_pretrained("new"), and name the new directory.'
)


def read_tokenizer(directory: Path, source: str) -> TokenizerFiles:
    """The tokenizer's files; raises ModelFileError where there is no tokenizer.json."""
    if not (directory / TOKENIZER).is_file():
        raise ModelFileError(
            f"{directory} must hold {TOKENIZER}, and does not. Let transformers convert its tokenizer: "
            'AutoTokenizer.from_pretrained("it").save_pretrained("it").'
        )
    return TokenizerFiles(
        tokenizer_json=read_text(directory / TOKENIZER, MOST_TOKENIZER),
        tokenizer_config=_optional_object(directory / TOKENIZER_CONFIG) or {},
        chat_template=_template(directory),
        special_tokens_map=_optional_object(directory / SPECIAL_TOKENS),
        source=source,
    )


def _optional_object(path: Path) -> dict[str, Any] | None:
    return read_object(path) if path.is_file() else None


def _template(directory: Path) -> str | None:
    """The chat template's own file, in today's or the older form."""
    if (directory / TEMPLATE).is_file():
        return read_text(directory / TEMPLATE, MOST_TEMPLATE)
    template = (_optional_object(directory / OLD_TEMPLATE) or {}).get("chat_template")
    return template if isinstance(template, str) else None
