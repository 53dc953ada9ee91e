"""An impossible configuration is refused before anything is computed, by the name of the key."""

from __future__ import annotations

import json
import math
import re

import pytest

from fabula.errors import ModelFileError, NotSupportedError
from fabula.models.families.config import ModelConfig
from fabula.models.families.table import family_for
from tests.models.configurations import SMALL

LLAMA = {**SMALL, "model_type": "llama"}
GPT2 = {"model_type": "gpt2", "n_embd": 12, "n_head": 3, "n_layer": 1, "vocab_size": 7}
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim")
IMPOSSIBLE = (0, -1, 1 << 40, 1.5, 32.0, math.nan, math.inf, True, "32", [32], {"a": 1})


def refused(values, key):
    """The message of the refusal, which names the key and says what was got."""
    with pytest.raises((ModelFileError, NotSupportedError)) as caught:
        family_for(ModelConfig.from_dict(values))
    message = str(caught.value)
    assert key in message
    assert re.search(r"must (be|hold)", message)
    assert "got" in message
    return message


@pytest.mark.parametrize("value", IMPOSSIBLE, ids=repr)
@pytest.mark.parametrize("key", [*SIZES, "num_key_value_heads", "max_position_embeddings"])
def test_sizes_that_cannot_be_are_refused(key, value):
    assert repr(value)[:20] in refused({**LLAMA, key: value}, key)


@pytest.mark.parametrize("value", IMPOSSIBLE, ids=repr)
@pytest.mark.parametrize("key", ["n_embd", "n_head", "n_layer", "n_positions", "n_inner"])
def test_sizes_under_a_familys_own_names_are_refused(key, value):
    refused({**GPT2, key: value}, key)


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"])
def test_a_size_that_is_null_is_refused(key):
    refused({**LLAMA, key: None}, key)


@pytest.mark.parametrize("value", [0, -1e-5, math.nan, math.inf, True, "1e-5", [1]], ids=repr)
@pytest.mark.parametrize("key", ["rms_norm_eps", "final_logit_softcapping", "query_pre_attn_scalar"])
def test_numbers_that_cannot_be_are_refused(key, value):
    refused({**SMALL, "model_type": "gemma3_text", "head_dim": 8, key: value}, key)


@pytest.mark.parametrize("value", [0, -4, True, 2.5, "4"], ids=repr)
def test_windows_that_cannot_be_are_refused(value):
    refused({**SMALL, "model_type": "mistral", "sliding_window": value}, "sliding_window")


def test_heads_that_do_not_divide_are_refused():
    assert "a divisor of num_attention_heads (4), got 3" in refused(
        {**LLAMA, "num_key_value_heads": 3}, "num_key_value_heads"
    )
    assert "a multiple of num_attention_heads (5), got 32" in refused(
        {**LLAMA, "num_attention_heads": 5, "num_key_value_heads": 5}, "hidden_size"
    )
    refused({**GPT2, "n_head": 5}, "n_embd")


def test_a_head_that_rotary_positions_cannot_halve_is_refused():
    refused({**LLAMA, "head_dim": 7}, "head_dim")


def test_unknown_architectures_are_refused_with_the_nearest_known_name():
    assert "Did you mean 'llama'" in refused({**LLAMA, "model_type": "lama"}, "model_type")
    refused({**LLAMA, "model_type": None}, "model_type")
    refused({**LLAMA, "model_type": ["llama"]}, "model_type")
    refused({}, "model_type")
    refused({"model_type": "gemma3", "text_config": {"model_type": "siglip"}}, "model_type")


@pytest.mark.parametrize("values", [None, [], "config", 3], ids=repr)
def test_a_file_that_is_no_object_is_refused(values):
    with pytest.raises(ModelFileError, match=r"config\.json must hold an object"):
        ModelConfig.from_dict(values)


def test_a_text_part_that_is_no_object_is_refused():
    refused({"model_type": "gemma3", "text_config": [1]}, "text_config")


@pytest.mark.parametrize(
    ("rope", "key"),
    [
        ({"rope_type": "linear"}, "factor"),
        ({"rope_type": "linear", "factor": "4"}, "factor"),
        ({"rope_type": "linear", "factor": 0}, "factor"),
        ({"rope_type": "linear", "factor": math.nan}, "factor"),
        ({"rope_type": "linear", "factor": True}, "factor"),
        ({"rope_type": "default", "rope_theta": -1}, "rope_theta"),
        ({"rope_type": "default", "rope_theta": math.inf}, "rope_theta"),
        ({"rope_type": "default", "rope_theta": [1e4]}, "rope_theta"),
        ({"rope_type": "default", "partial_rotary_factor": 1.5}, "partial_rotary_factor"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_type": "default", "partial_rotary_factor": 0.01}, "partial_rotary_factor"),
        ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}, "high_freq_factor"),
        ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}, "high_freq_factor"),
        ({"rope_type": "yarn", "factor": 4.0, "beta_fast": -1}, "beta_fast"),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 0},
            "original_max_position_embeddings",
        ),
        ({"rope_type": "longrope", "short_factor": [1.0]}, "short_factor"),
        ({"rope_type": "longrope", "short_factor": [1.0, 0.0, 1.0, 1.0]}, "short_factor"),
        ({"rope_type": "dynamic", "factor": 2.0}, "rope_type"),
        ({"rope_type": "unheard"}, "rope_type"),
        ({"rope_type": 3}, "rope_type"),
        ("linear", "rope_scaling"),
        ([1], "rope_scaling"),
    ],
    ids=str,
)
def test_rope_scalings_that_cannot_be_are_refused(rope, key):
    refused({**LLAMA, "rope_scaling": rope}, key)


@pytest.mark.parametrize(
    ("model_type", "key", "value"),
    [
        ("llama", "mlp_bias", True),
        ("llama", "hidden_act", "gelu_10"),
        ("llama", "hidden_act", None),
        ("llama", "hidden_act", ["silu"]),
        ("llama", "attention_bias", "yes"),
        ("llama", "tie_word_embeddings", 1),
        ("gemma3_text", "use_bidirectional_attention", True),
        ("gemma3_text", "layer_types", ["full_attention"]),
        ("gemma3_text", "layer_types", ["full_attention", "chunked_attention"]),
        ("gemma3_text", "layer_types", "full_attention"),
        ("gemma3_text", "sliding_window_pattern", 0),
        ("qwen2", "max_window_layers", "all"),
        ("gpt2", "add_cross_attention", True),
    ],
    ids=str,
)
def test_switches_that_a_family_does_not_have_are_refused(model_type, key, value):
    values = GPT2 if model_type == "gpt2" else {**SMALL, "model_type": model_type, "head_dim": 8}
    refused(
        {**values, "use_sliding_window": True, key: value} if model_type == "qwen2" else {**values, key: value}, key
    )


def test_a_number_beyond_json_is_refused_when_it_is_a_size():
    refused({**LLAMA, **json.loads('{"hidden_size": NaN}')}, "hidden_size")
    refused({**LLAMA, **json.loads('{"num_hidden_layers": 1e400}')}, "num_hidden_layers")


def test_keys_that_python_uses_are_values_like_any_other():
    config = ModelConfig.from_dict({**LLAMA, "self": 1, "values": 2, "cls": 3})
    assert (config.self, config.values, config.cls) == (1, 2, 3)
