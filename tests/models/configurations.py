"""Small random models of every family, written by transformers: what each backend is compared on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fabula.models.families.config import ModelConfig
from fabula.models.families.family import Family
from fabula.models.families.table import family_for
from fabula.quant.formats import StoredTensor

SMALL = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT2 = {
    "vocab_size": 101,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 50000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}


@dataclass(frozen=True)
class Case:
    """One configuration: the class of transformers that writes it, and its values."""

    name: str
    writer: str  # a configuration class of transformers
    values: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def _case(name: str, writer: str, **values: Any) -> Case:
    return Case(name, writer, {**(GPT2 if writer == "GPT2Config" else SMALL), **values})


CASES = (
    _case("llama", "LlamaConfig"),
    _case("llama-tied", "LlamaConfig", tie_word_embeddings=True, num_key_value_heads=4),
    _case("llama-one-key-head", "LlamaConfig", num_key_value_heads=1, rms_norm_eps=1e-5),
    _case("llama-wide-heads", "LlamaConfig", head_dim=24),
    _case(
        "llama-odd-sizes", "LlamaConfig", hidden_size=36, num_attention_heads=3, num_key_value_heads=3, vocab_size=89
    ),
    _case("llama-biases", "LlamaConfig", attention_bias=True, num_hidden_layers=3),
    _case(
        "llama-linear-rope", "LlamaConfig", rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    ),
    _case("llama-3-rope", "LlamaConfig", rope_parameters=LLAMA3),
    _case("llama-yarn", "LlamaConfig", rope_parameters=YARN),
    _case(
        "llama-64", "LlamaConfig", hidden_size=128, num_attention_heads=2, num_key_value_heads=1, intermediate_size=96
    ),
    _case("mistral", "MistralConfig", sliding_window=5),
    _case("mistral-window-of-blocks", "MistralConfig", sliding_window=40, num_key_value_heads=1),
    _case("mistral-without-window", "MistralConfig", sliding_window=None, tie_word_embeddings=True),
    _case("gemma3", "Gemma3TextConfig", head_dim=16, sliding_window=7, num_hidden_layers=7, query_pre_attn_scalar=16),
    _case(
        "gemma3-pattern",
        "Gemma3TextConfig",
        head_dim=12,
        sliding_window=33,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
        num_hidden_layers=3,
        query_pre_attn_scalar=20,
        final_logit_softcapping=5.0,
    ),
    _case(
        "gemma3-scaled",
        "Gemma3TextConfig",
        head_dim=8,
        sliding_window=8,
        attention_bias=True,
        layer_types=["sliding_attention", "full_attention"],
        tie_word_embeddings=False,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    ),
    _case("qwen2", "Qwen2Config"),
    _case(
        "qwen2-upper-window",
        "Qwen2Config",
        use_sliding_window=True,
        sliding_window=6,
        max_window_layers=1,
        num_hidden_layers=3,
        tie_word_embeddings=True,
    ),
    _case("qwen3", "Qwen3Config", head_dim=16),
    _case("qwen3-biases", "Qwen3Config", head_dim=8, attention_bias=True, tie_word_embeddings=True),
    _case("qwen3-window", "Qwen3Config", head_dim=8, use_sliding_window=True, sliding_window=9, max_window_layers=1),
    _case("gpt2", "GPT2Config"),
    _case("gpt2-inner", "GPT2Config", n_inner=40, activation_function="relu", n_head=2),
    _case("gpt2-layer-scale", "GPT2Config", scale_attn_by_inverse_layer_idx=True, activation_function="gelu"),
    _case("gpt2-unscaled", "GPT2Config", scale_attn_weights=False, n_layer=1),
)
# One of each family, for what costs more.
FIRST = tuple({case.writer: case for case in reversed(CASES)}.values())[::-1]


def write(case: Case, directory: Path) -> Any:
    """A random model of transformers, in float32 and eval mode, and its files in `directory`."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(sum(map(ord, case.name)))
    config = getattr(transformers, case.writer)(**case.values)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(directory)
    return model


def read_parts(directory: Path) -> tuple[Family, dict[str, StoredTensor]]:
    """What from_tensors() takes: the family of a written configuration, and the weights."""
    return read_family(directory), read_tensors(directory)


def read_family(directory: Path) -> Family:
    """The family of a written configuration."""
    return family_for(ModelConfig.from_dict(json.loads((directory / "config.json").read_text())))


def read_tensors(directory: Path) -> dict[str, StoredTensor]:
    """The written weights."""
    from safetensors.numpy import load_file

    arrays = load_file(directory / "model.safetensors")
    return {name: stored(name, array) for name, array in arrays.items()}


def stored(name: str, array: np.ndarray, transposed: bool = False) -> StoredTensor:
    """A float32 array as a file would hold it."""
    data = np.ascontiguousarray(array, np.float32).reshape(-1).view(np.uint8)
    return StoredTensor(name, "F32", array.shape, data, transposed)
