"""What a call of a pipeline asks for: its own arguments, read and checked, apart from those of generate()."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any

from fabula.errors import ArgumentError, UnknownArgumentError
from fabula.generation.settings.checks import nearest
from fabula.generation.settings.fields import FIELDS
from fabula.generation.settings.rules import MODEL_INPUTS

OWN = (  # arguments that a pipeline reads itself
    *("return_full_text", "return_text", "return_tensors", "return_type", "clean_up_tokenization_spaces"),
    *("skip_special_tokens", "prefix", "handle_long_generation", "stop_sequence", "continue_final_message"),
    *("tokenizer_encode_kwargs", "add_special_tokens", "padding", "truncation", "tools", "documents"),
    *("batch_size", "num_workers"),
)
_ENCODING = ("add_special_tokens", "padding", "truncation")
_AS_GIVEN = ("clean_up_tokenization_spaces", "skip_special_tokens", "prefix", "continue_final_message", "tools")
_OF_GENERATE = (  # what generate() takes beside fields and the model's inputs
    *("generation_config", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "streamer"),
    *("assistant_model", "negative_prompt_ids", "negative_prompt_attention_mask", "custom_generate", "synced_gpus"),
)
_TAKEN = ("return_tensors", "return_dict", "tokenize")  # options of the tokenizer that a pipeline needs for itself


class ReturnType(Enum):
    """What a pipeline answers with."""

    TENSORS = 0  # ids
    NEW_TEXT = 1
    FULL_TEXT = 2  # prompt and new text


@dataclass(frozen=True, slots=True)
class Settings:
    """Every argument of a call, those given when the pipeline was made included."""

    return_type: ReturnType = ReturnType.FULL_TEXT
    clean_up_tokenization_spaces: bool | None = None  # None: as the tokenizer does
    skip_special_tokens: bool | None = None  # None: True
    prefix: str | None = None  # text in front of every prompt that is text
    hole: bool = False  # cut prompts on the left, so that the new tokens have room
    stop: tuple[str, ...] | None = None
    continue_final_message: bool | None = None  # None: where the last message is the assistant's
    encoding: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # options of the tokenizer
    tools: Any = None
    documents: Any = None
    batch_size: int | None = None  # prompts that are computed together
    generate: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # arguments of generate()

    @property
    def special_tokens_skipped(self) -> bool:
        """Whether texts leave special tokens out."""
        return self.skip_special_tokens is not False


def read_settings(given: Mapping[str, Any], earlier: Settings, extras: tuple[str, ...] = ()) -> Settings:
    """`earlier` with what is given now; a None of the pipeline's own arguments is as good as absent.

    `extras` are names that the model's config holds beside the fields. Raises ArgumentError, UnknownArgumentError.
    """
    _refuse_unknown(given, extras)
    own = {name: value for name, value in given.items() if name in OWN and value is not None}
    arguments = {name: value for name, value in given.items() if name not in OWN}
    found: dict[str, Any] = {name: own[name] for name in (*_AS_GIVEN, "documents") if name in own}
    if (kind := _return_type(own)) is not None:
        found["return_type"] = kind
    if own.get("handle_long_generation", "hole") != "hole":
        raise ArgumentError(
            f"`handle_long_generation` must be 'hole' or None, got {own['handle_long_generation']!r}. "
            "'hole' cuts prompts on the left."
        )
    if "handle_long_generation" in own:
        found["hole"] = True
    if "batch_size" in own:
        found["batch_size"] = _batch_size(own["batch_size"])
    if "stop_sequence" in own:
        found["stop"] = _stop(own["stop_sequence"], arguments)
    found["encoding"] = {**earlier.encoding, **_encoding(own, arguments)}
    found["generate"] = _merged(earlier.generate, arguments)
    return replace(earlier, **found)


def _refuse_unknown(given: Mapping[str, Any], extras: tuple[str, ...]) -> None:
    known = (*OWN, *_OF_GENERATE, *FIELDS, *MODEL_INPUTS, *extras)
    for name in given:
        if name not in known:
            meant = nearest(name, sorted(known))
            advice = f"Did you mean `{meant}`?" if meant else "See the guide to pipelines for the arguments."
            raise UnknownArgumentError(f"`{name}` must be an argument of a pipeline or of generate(). {advice}")


def _return_type(own: Mapping[str, Any]) -> ReturnType | None:
    """The one that the flags ask for; None where none of them is given."""
    full, text, ids = own.get("return_full_text"), own.get("return_text"), bool(own.get("return_tensors"))
    if (kind := own.get("return_type")) is not None:
        return ReturnType(kind)
    if text is not None and (full is not None or ids):
        other = "return_tensors" if ids else "return_full_text"
        raise ArgumentError(f"`return_text` and `{other}` exclude each other, got both. Leave one out.")
    if full is not None and ids:
        raise ArgumentError("`return_full_text` and `return_tensors` exclude each other, got both. Leave one out.")
    if text is False:
        raise ArgumentError("`return_text` must be True or absent, got False. For ids pass return_tensors=True.")
    if ids:
        return ReturnType.TENSORS
    return None if full is None else ReturnType.FULL_TEXT if full else ReturnType.NEW_TEXT


def _batch_size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(f"`batch_size` must be an int of at least 1, got {value!r}. 8 is a good start.")
    return value


def _stop(value: Any, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    if arguments.get("stop_strings") is not None:
        raise ArgumentError("`stop_sequence` and `stop_strings` are one thing, got both. Leave one out.")
    return (value,) if isinstance(value, str) else tuple(value)


def _encoding(own: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the tokenizer; `max_length` is one of them as well as generate()'s."""
    options = {name: own[name] for name in _ENCODING if name in own}
    if arguments.get("max_length") is not None:
        options["max_length"] = arguments["max_length"]
    options.update(own.get("tokenizer_encode_kwargs", {}))
    for name in _TAKEN:
        if name in options:
            raise ArgumentError(f"`tokenizer_encode_kwargs` must not hold `{name}`: the pipeline sets it. Remove it.")
    return options


def _merged(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """A call's `generation_config` takes the place of all settings given earlier; single ones are overridden singly."""
    if now.get("generation_config") is not None:
        earlier = {name: value for name, value in earlier.items() if name not in FIELDS and name != "generation_config"}
    return {**earlier, **now}
