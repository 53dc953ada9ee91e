"""A configuration reads every spelling of transformers, keeps what it does not know, and survives a round trip."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from fabula.models.families.config import ModelConfig
from fabula.models.families.table import family_for, model_types
from tests.models.configurations import CASES, SMALL

LLAMA = {**SMALL, "model_type": "llama"}
# What transformers has under one name and we under another, or not at all: its own bookkeeping.
DERIVED = {"head_dim", "num_key_value_heads", "layer_types", "rope_parameters", "sliding_window"}


def test_keys_are_attributes_and_unknown_ones_are_kept():
    config = ModelConfig.from_dict({**LLAMA, "my_key": {"a": [1, 2]}})
    assert config.my_key == {"a": [1, 2]}
    assert config.get("nothing", 7) == 7
    assert "my_key" in config
    assert not hasattr(config, "nothing")
    config.pad_token_id = 3
    assert config.to_dict()["pad_token_id"] == 3
    assert config.get_text_config() is config


def test_what_every_configuration_of_transformers_says_is_there_and_not_saved():
    config = ModelConfig.from_dict(LLAMA)
    assert (config.is_encoder_decoder, config.output_attentions, config.output_hidden_states) == (False, False, False)
    assert config.get_text_config(decoder=True) is config
    assert "is_encoder_decoder" not in config.to_dict() and config.get("is_encoder_decoder") is None
    config.is_encoder_decoder = True
    assert config.is_encoder_decoder


def test_gpt2_answers_to_the_usual_names_and_keeps_its_own():
    config = ModelConfig(model_type="gpt2", n_embd=24, n_head=3, n_layer=5)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (24, 5, 3)
    assert config.get("max_position_embeddings") == 1024
    config.hidden_size = 48
    assert config.n_embd == 48
    assert "hidden_size" not in config.to_dict()
    assert ModelConfig(model_type="gpt2", hidden_size=24, num_attention_heads=3).n_embd == 24


def test_a_saved_configuration_reads_back_equal(tmp_path):
    config = ModelConfig.from_dict({**LLAMA, "my_key": "my value", "torch_dtype": "bfloat16"})
    config.save_pretrained(tmp_path / "new")
    again = ModelConfig.from_dict(json.loads((tmp_path / "new" / "config.json").read_text()))
    assert again == config
    assert again.dtype == again.torch_dtype == "bfloat16"


def test_copies_and_pickles_are_equal_and_independent():
    config = ModelConfig(**LLAMA)
    for twin in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert twin == config
        twin.vocab_size = 5
        assert config.vocab_size == 101


@pytest.mark.parametrize("model_type", sorted(set(model_types()) - {"gemma3"}))
def test_absent_keys_mean_what_they_mean_to_transformers(model_type):
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoConfig.for_model(model_type)
    config = ModelConfig(model_type=model_type)
    family = family_for(config)
    expected = reference.to_dict()
    for key, value in config.to_dict().items():
        if key in expected and key not in DERIVED:
            assert value == expected[key], key
    assert config.num_key_value_heads == getattr(reference, "num_key_value_heads", reference.num_attention_heads)
    if family.rotary:
        assert config.rope_parameters == reference.rope_parameters
    windows = [layer.attention.window for layer in family.layers]
    kinds = getattr(reference, "layer_types", None) or ["sliding_attention"] * len(windows)
    slides = getattr(reference, "sliding_window", None)
    assert windows == [slides if kind == "sliding_attention" else None for kind in kinds]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_we_save_transformers_reads_as_what_it_wrote(case, tmp_path):
    transformers = pytest.importorskip("transformers")
    reference = getattr(transformers, case.writer)(**case.values)
    reference.save_pretrained(tmp_path / "theirs")
    config = ModelConfig.from_dict(json.loads((tmp_path / "theirs" / "config.json").read_text()))
    config.save_pretrained(tmp_path / "ours")
    again = transformers.AutoConfig.from_pretrained(tmp_path / "ours").to_dict()
    expected = transformers.AutoConfig.from_pretrained(tmp_path / "theirs").to_dict()
    assert {key: again.get(key) for key in expected if key != "_name_or_path"} == {
        key: value for key, value in expected.items() if key != "_name_or_path"
    }


def test_older_spellings_of_rope_mean_the_same():
    scaling = {"type": "linear", "factor": 4.0}
    older = ModelConfig(**LLAMA, rope_theta=5e5, rope_scaling=scaling)
    newer = ModelConfig(**LLAMA, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5})
    assert older.rope_parameters == newer.rope_parameters
    assert older.rope_theta == 5e5
    assert family_for(older).layers == family_for(newer).layers


def test_gemma3_has_two_bases_in_either_spelling():
    values = {**SMALL, "model_type": "gemma3_text", "head_dim": 8}
    older = ModelConfig(
        **values, rope_theta=3e5, rope_local_base_freq=2e4, rope_scaling={"type": "linear", "factor": 8.0}
    )
    newer = ModelConfig(
        **values,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 3e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
        },
    )
    assert older.rope_parameters == newer.rope_parameters
    assert ModelConfig(**values).rope_parameters["full_attention"]["rope_theta"] == 1e6


def test_the_text_part_of_a_multimodal_configuration_is_taken_out():
    text = {**SMALL, "model_type": "gemma3_text", "head_dim": 8, "eos_token_id": None}
    outer = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 3}, "eos_token_id": [1, 106]}
    config = ModelConfig.from_dict(outer)
    assert (config.model_type, config.head_dim, config.eos_token_id) == ("gemma3_text", 8, [1, 106])
    assert "vision_config" not in config
