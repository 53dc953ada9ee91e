"""Rotary frequencies are, to the last bit, those of transformers."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.models.families.config import ModelConfig
from fabula.ops.rope import rope_spec

SCALINGS = {
    "default": {},
    "a large base": {"rope_theta": 1e6},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
    "yarn, every number given": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "truncate": False,
        "mscale": 0.7,
        "mscale_all_dim": 0.5,
        "beta_fast": 24,
        "beta_slow": 2,
    },
    "yarn, its temperature given": {"rope_type": "yarn", "factor": 2.0, "attention_factor": 1.25},
    "longrope, short": {
        "rope_type": "longrope",
        "short_factor": [1.0 + i / 10 for i in range(32)],
        "long_factor": [2.0] * 32,
        "original_max_position_embeddings": 512,
    },
}


@pytest.mark.parametrize("parameters", SCALINGS.values(), ids=SCALINGS)
def test_frequencies_equal_those_of_transformers(parameters):
    transformers = pytest.importorskip("transformers")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    parameters = {"rope_type": "default", "rope_theta": 10000.0, **parameters}
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "max_position_embeddings": 2048}
    reference = llama.LlamaRotaryEmbedding(transformers.LlamaConfig(**sizes, rope_parameters=dict(parameters)))
    spec = rope_spec(ModelConfig(model_type="llama", **sizes, rope_parameters=parameters))
    assert np.array_equal(np.array(spec.inverse_frequencies, np.float32), reference.inv_freq.numpy())
    assert spec.attention_factor == pytest.approx(reference.attention_scaling, rel=1e-15)
    assert spec.head_dim == 64


def test_a_part_of_each_head_may_stay_as_it_is():
    config = ModelConfig(model_type="llama", hidden_size=64, num_attention_heads=2, partial_rotary_factor=0.25)
    spec = rope_spec(config)
    assert len(spec.inverse_frequencies) == 4
    assert spec.head_dim == 32


def test_layers_of_two_types_have_two_sets():
    config = ModelConfig(
        model_type="gemma3_text", hidden_size=64, num_attention_heads=2, head_dim=8, num_key_value_heads=1
    )
    slow, fast = rope_spec(config, "full_attention"), rope_spec(config, "sliding_attention")
    assert slow.inverse_frequencies[-1] == pytest.approx(1e6**-0.75)
    assert fast.inverse_frequencies[-1] == pytest.approx(1e4**-0.75)
