"""What a call of generate() is to do: call, config, model and defaults merged, then held against what works today."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from fabula.errors import NotSupportedError, UnknownArgumentError
from fabula.generation.settings.checks import ANYTHING, Check, nearest
from fabula.generation.settings.combinations import is_set
from fabula.generation.settings.fields import FIELDS, OLD_STATIC_CACHES, Field, stored

__all__ = [
    "MODEL_INPUTS",
    "SOURCES",
    "SUPPORTED",
    "WITHOUT_HEADS",
    "Setting",
    "check_supported",
    "merge",
    "reject_unknown",
    "resolve",
    "unsupported",
]

Config = TypeVar("Config")
SOURCES = ("call", "generation_config", "model", "default")  # where a value comes from, the first that has one

# Names that a call may hold beside fields: they belong to the model's forward or to generate() itself.
MODEL_INPUTS = (
    "attention_mask",
    "position_ids",
    "token_type_ids",
    "input_ids",
    "inputs",
    "inputs_embeds",
    "past_key_values",
    "cache_position",
    "encoder_outputs",
    "decoder_input_ids",
    "decoder_attention_mask",
    "decoder_inputs_embeds",
    "tokenizer",
    "assistant_tokenizer",
    "trust_remote_code",
)

# Fields that generate() honours today, and which of their values; a field's default always works.
SUPPORTED: Mapping[str, Check] = MappingProxyType(
    {
        "max_length": ANYTHING,
        "max_new_tokens": ANYTHING,
        "min_length": ANYTHING,
        "min_new_tokens": ANYTHING,
        "max_time": ANYTHING,
        "stop_strings": ANYTHING,
        "do_sample": ANYTHING,
        "seed": ANYTHING,
        "temperature": ANYTHING,
        "top_k": ANYTHING,
        "top_p": ANYTHING,
        "min_p": ANYTHING,
        "repetition_penalty": ANYTHING,
        "encoder_repetition_penalty": ANYTHING,
        "no_repeat_ngram_size": ANYTHING,
        "encoder_no_repeat_ngram_size": ANYTHING,
        "bad_words_ids": ANYTHING,
        "sequence_bias": ANYTHING,
        "forced_bos_token_id": ANYTHING,
        "forced_eos_token_id": ANYTHING,
        "remove_invalid_values": ANYTHING,
        "exponential_decay_length_penalty": ANYTHING,
        "suppress_tokens": ANYTHING,
        "begin_suppress_tokens": ANYTHING,
        "watermarking_config": ANYTHING,
        "renormalize_logits": ANYTHING,
        "top_h": ANYTHING,
        "typical_p": ANYTHING,
        "epsilon_cutoff": ANYTHING,
        "eta_cutoff": ANYTHING,
        "num_return_sequences": ANYTHING,
        "output_scores": ANYTHING,
        "output_logits": ANYTHING,
        "output_log_probabilities": ANYTHING,
        "output_prompt_log_probabilities": ANYTHING,
        "top_log_probabilities": ANYTHING,
        "output_hidden_states": ANYTHING,
        "output_attentions": ANYTHING,
        "return_dict_in_generate": ANYTHING,
        "pad_token_id": ANYTHING,
        "bos_token_id": ANYTHING,
        "eos_token_id": ANYTHING,
        "use_cache": ANYTHING,
        "cache_implementation": ANYTHING,
        "cache_config": ANYTHING,
        "max_cache_len": ANYTHING,
        "prefill_chunk_size": ANYTHING,
        "decoder_start_token_id": ANYTHING,
        "token_healing": ANYTHING,
        "compile_config": ANYTHING,
        "disable_compile": ANYTHING,  # nothing is compiled behind the caller's back
        "guidance_scale": ANYTHING,
        "num_beams": ANYTHING,
        "length_penalty": ANYTHING,
        "early_stopping": ANYTHING,
        "num_beam_groups": ANYTHING,
        "diversity_penalty": ANYTHING,
        "constraints": ANYTHING,
        "force_words_ids": ANYTHING,
        "penalty_alpha": ANYTHING,
        "low_memory": ANYTHING,  # candidates share all of their past anyway
        "dola_layers": ANYTHING,
        "prompt_lookup_num_tokens": ANYTHING,
        "max_matching_ngram_size": ANYTHING,
        "assistant_early_exit": ANYTHING,
        "is_assistant": ANYTHING,
        "num_assistant_tokens": ANYTHING,
        "num_assistant_tokens_schedule": ANYTHING,
        "assistant_confidence_threshold": ANYTHING,
        "assistant_ensemble_weight": ANYTHING,
        "assistant_lookbehind": ANYTHING,
        "target_lookbehind": ANYTHING,
    }
)


# Fields that no model here has what it takes for.
WITHOUT_HEADS: Mapping[str, str] = MappingProxyType(
    {
        "use_mtp": "no family here has heads that predict several tokens",
        "speculation_type": "no family here has heads that draft blocks of tokens",
    }
)


@dataclass(frozen=True, slots=True)
class Setting:
    """A field's value in a call, and where it came from."""

    value: Any
    source: str  # one of SOURCES


def merge(call: Mapping[str, Any], given: Any, model: Any) -> dict[str, Setting]:
    """Every field's value: from the call, else the given config, else the model's, else the default.

    A None in the call unsets a field. `given` and `model` are configs or None.
    """
    return {name: _setting(field, call, given, model) for name, field in FIELDS.items()}


def _setting(field: Field, call: Mapping[str, Any], given: Any, model: Any) -> Setting:
    if field.name in call:
        value = stored(field.name, call[field.name])
        return Setting(field.unset if value is None else value, "call")
    for config, source in ((given, "generation_config"), (model, "model")):
        value = getattr(config, field.name, None)
        if value is not None and not _outdated(field.name, value):
            return Setting(value, source)
    return Setting(field.default, "default")


def _outdated(name: str, value: Any) -> bool:
    """Cache names that old files carry and that ask for nothing that we do not do anyway."""
    return name == "cache_implementation" and value in OLD_STATIC_CACHES


def resolve(
    call: Mapping[str, Any], given: Config | None, model: Config, accepts: Iterable[str] = MODEL_INPUTS
) -> tuple[Config, dict[str, Any]]:
    """The config of one call, every field settled, and the call's arguments that are no fields (among `accepts`).

    `max_length` and `min_length` stay None where nobody set them (`lengths.py` settles them for a prompt). Copies are
    deep and nothing given is changed; the result shares with `model` only the memory of warnings already given.
    Raises UnknownArgumentError, ArgumentError.
    """
    config = deepcopy(model if given is None else given)
    for name, value in _extras(model).items():
        if not hasattr(config, name):
            setattr(config, name, deepcopy(value))
    config._said = model._said  # type: ignore[attr-defined]
    reject_unknown(call, config, accepts)
    leftover = {name: value for name, value in call.items() if name not in FIELDS and name not in _extras(config)}
    settings = merge(call, given, model)
    for name, setting in settings.items():
        unset = setting.source == "default" or call.get(name, ...) is None
        setattr(config, name, None if unset and name in ("max_length", "min_length") else deepcopy(setting.value))
    for name in set(call) - set(leftover) - set(FIELDS):
        setattr(config, name, deepcopy(call[name]))
    chosen = {name for name, setting in settings.items() if setting.source in ("call", "generation_config")}
    _check(config, chosen)
    return config, leftover


def _extras(config: Any) -> dict[str, Any]:
    """A config's attributes that are no fields."""
    private = ("_", "transformers_version")
    return {name: value for name, value in vars(config).items() if name not in FIELDS and not name.startswith(private)}


def reject_unknown(call: Iterable[str], config: Any, accepts: Iterable[str] = MODEL_INPUTS) -> None:
    """Raise UnknownArgumentError for a name that is no field, no extra attribute of `config` and not accepted."""
    known = {*FIELDS, *accepts}
    for name in call:
        if name not in known and name not in _extras(config):
            meant = nearest(name, sorted(known))
            advice = f"Did you mean `{meant}`?" if meant else "See GenerationConfig for the fields."
            raise UnknownArgumentError(f"`{name}` must be an argument of generate(), got an unknown name. {advice}")


def _check(config: Any, chosen: Collection[str]) -> None:
    """Refuse values out of range (inherited ones only where they act); warn of what has no effect."""
    for name in sorted(chosen):
        FIELDS[name].check.require(name, getattr(config, name))
    for name, field in FIELDS.items():
        if name not in chosen and field.need.unmet(config) is None:
            field.check.require(name, getattr(config, name))
    config.validate(user_set_attributes=chosen)


def unsupported(field: Field, settings: Any) -> str | None:
    """Why the field's value cannot be honoured today; None where it can, or where it has no effect."""
    value = getattr(settings, field.name)
    if not is_set(field, value) or field.need.unmet(settings) is not None:
        return None
    check = SUPPORTED.get(field.name)
    if check is None:
        reason = WITHOUT_HEADS.get(field.name)
        return f"`{field.name}={value!r}` is not supported{f': {reason}' if reason else ' yet'}. Leave it out."
    return None if check.accepts(value) else f"`{field.name}` must be {check.allowed} for now, got {value!r}."


def check_supported(config: Any) -> None:
    """Raise NotSupportedError for the first setting that would otherwise be ignored."""
    for field in FIELDS.values():
        reason = unsupported(field, config)
        if reason is not None:
            raise NotSupportedError(reason)
