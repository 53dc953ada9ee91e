"""What a config.json's values may be: defaults filled in, sizes and numbers proved sane, older spellings read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fabula.errors import ModelFileError
from fabula.models.families.table import family_class
from fabula.ops.rope import standard_rope

OLDER_NAMES = {"torch_dtype": "dtype"}  # older name -> today's name, for every family

# What a size may be: [1, limit]. The limits are far above every model and far below what overflows.
SIZE_LIMITS: Mapping[str, int] = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 22,
    "num_hidden_layers": 1 << 12,
    "num_attention_heads": 1 << 14,
    "num_key_value_heads": 1 << 14,
    "head_dim": 1 << 14,
    "max_position_embeddings": 1 << 30,
}
OPTIONAL_SIZES: Mapping[str, int] = {
    "sliding_window": 1 << 30,
    "sliding_window_pattern": 1 << 12,
    "n_inner": 1 << 22,
    "num_decoder_layers": 1 << 12,
    "relative_attention_num_buckets": 1 << 16,
    "relative_attention_max_distance": 1 << 24,
}
POSITIVE_NUMBERS = (
    "rms_norm_eps",
    "layer_norm_epsilon",
    "query_pre_attn_scalar",
    "final_logit_softcapping",
    "attn_logit_softcapping",
)
FLAGS = (
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "use_sliding_window",
    "scale_attn_weights",
    "scale_decoder_outputs",
    "is_gated_act",
)


def checked_values(values: dict[str, Any]) -> dict[str, Any]:
    """The values of the text model with defaults, each size and number proved sane."""
    values = _text_values(values)
    family = family_class(values)
    complete = {**family.defaults, **values}
    for older, name in {**OLDER_NAMES, **family.aliases}.items():
        if older in values and name not in values:
            complete[name] = complete.pop(older)
    names = {name: family.aliases.get(name, name) for name in SIZE_LIMITS}
    _fill_heads(complete, names)
    for name, limit in SIZE_LIMITS.items():
        if names[name] in complete:
            _check_size(complete, names[name], limit)
    _check_optional(complete)
    _check_heads(complete, names)
    _check_layer_types(complete, names["num_hidden_layers"])
    if family.rotary:
        complete["rope_parameters"] = standard_rope(complete)
        for key in ("rope_theta", "rope_local_base_freq"):
            if key not in values:
                complete.pop(key, None)
    return family.settled(complete)


def _text_values(values: dict[str, Any]) -> dict[str, Any]:
    """The text part of a multimodal configuration, with what only the outer part says."""
    inner = values.get("text_config")
    if inner is None:
        return values
    if not isinstance(inner, Mapping):
        raise ModelFileError(f"text_config must be an object, got {inner!r:.60}. Fetch config.json again.")
    outer = ("tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id", "dtype", "torch_dtype")
    kept = {key: values[key] for key in outer if values.get(key) is not None}
    text = {**kept, **{key: value for key, value in inner.items() if value is not None or key not in kept}}
    text.setdefault("model_type", f"{values.get('model_type')}_text")
    return text


def _fill_heads(values: dict[str, Any], names: Mapping[str, str]) -> None:
    """Keys and values have as many heads as queries, and heads share the width, unless the file says otherwise."""
    heads, width = values.get(names["num_attention_heads"]), values.get(names["hidden_size"])
    if values.get(names["num_key_value_heads"]) is None:
        values[names["num_key_value_heads"]] = heads
    if values.get(names["head_dim"]) is None:
        _check_size(values, names["num_attention_heads"], SIZE_LIMITS["num_attention_heads"])
        _check_size(values, names["hidden_size"], SIZE_LIMITS["hidden_size"])
        assert isinstance(width, int)
        assert isinstance(heads, int)
        if width % heads:
            raise _refusal(names["hidden_size"], width, f"a multiple of {names['num_attention_heads']} ({heads})")
        values["head_dim"] = width // heads


def _refusal(key: str, value: Any, allowed: str) -> ModelFileError:
    return ModelFileError(f"{key} must be {allowed}, got {value!r:.60}. Repair config.json or fetch it again.")


def _check_size(values: Mapping[str, Any], key: str, limit: int, least: int = 1) -> None:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= limit:
        raise _refusal(key, value, f"an integer in [{least}, {limit}]")


def _check_optional(values: Mapping[str, Any]) -> None:
    for key, limit in OPTIONAL_SIZES.items():
        if values.get(key) is not None:
            _check_size(values, key, limit)
    if "max_window_layers" in values:
        _check_size(values, "max_window_layers", 1 << 12, least=0)
    for key in POSITIVE_NUMBERS:
        value = values.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
            raise _refusal(key, value, "a number in (0, 1e12)")
    for key in FLAGS:
        if key in values and not isinstance(values[key], bool):
            raise _refusal(key, values[key], "true or false")


def _check_heads(values: Mapping[str, Any], names: Mapping[str, str]) -> None:
    heads, shared = values[names["num_attention_heads"]], values[names["num_key_value_heads"]]
    if heads % shared:
        raise _refusal("num_key_value_heads", shared, f"a divisor of {names['num_attention_heads']} ({heads})")


def _check_layer_types(values: Mapping[str, Any], count_key: str) -> None:
    kinds = values.get("layer_types")
    if kinds is None:
        return
    known = ("full_attention", "sliding_attention")
    if not isinstance(kinds, list) or any(kind not in known for kind in kinds):
        raise _refusal("layer_types", kinds, f"a list of {' and '.join(known)}")
    if len(kinds) != values[count_key]:
        raise _refusal("layer_types", f"{len(kinds)} entries", f"a list of {count_key} ({values[count_key]}) entries")
