"""A random configuration of a random family for each seed: sizes and switches that nobody would choose."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.models.configurations import Case

WRITERS = ("LlamaConfig", "MistralConfig", "Gemma3TextConfig", "Qwen2Config", "Qwen3Config", "GPT2Config")
NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def random_case(seed: int) -> Case:
    """The same configuration for the same seed; six seeds in a row give six families."""
    random = Random(seed)
    writer = WRITERS[seed % len(WRITERS)]
    values = _gpt2(random) if writer == "GPT2Config" else _rotary(random, writer)
    shared = {"vocab_size": random.randint(5, 120), "tie_word_embeddings": random.random() < 0.5}
    return Case(f"random-{seed}-{writer.removesuffix('Config').lower()}", writer, {**NO_TOKENS, **shared, **values})


def _gpt2(random: Random) -> dict[str, Any]:
    heads = random.randint(1, 6)
    return {
        "n_embd": heads * 2 * random.randint(1, 9),
        "n_head": heads,
        "n_layer": random.randint(1, 4),
        "n_positions": 128,
        "n_inner": random.choice([None, random.randint(1, 60)]),
        "scale_attn_weights": random.random() < 0.7,
        "scale_attn_by_inverse_layer_idx": random.random() < 0.4,
        "activation_function": random.choice(["gelu_new", "gelu", "relu"]),
        "layer_norm_epsilon": random.choice([1e-5, 1e-3]),
    }


def _rotary(random: Random, writer: str) -> dict[str, Any]:
    key_heads, layers = random.randint(1, 3), random.randint(1, 4)
    heads = key_heads * random.randint(1, 3)
    values = {
        "hidden_size": heads * random.randint(2, 12),
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": 2 * random.randint(1, 9),
        "intermediate_size": random.randint(1, 70),
        "num_hidden_layers": layers,
        "max_position_embeddings": random.choice([32, 128, 4096]),
        "rms_norm_eps": random.choice([1e-6, 1e-5, 1e-2]),
    }
    window = random.choice([1, 2, 7, 31, 32, 33, 50])
    if writer != "Gemma3TextConfig":
        values["rope_parameters"] = _rope(random)
        values["hidden_act"] = random.choice(["silu", "gelu", "gelu_pytorch_tanh", "relu"])
    if writer in ("LlamaConfig", "Qwen3Config", "Gemma3TextConfig"):
        values["attention_bias"] = random.random() < 0.4
    if writer == "MistralConfig":
        values["sliding_window"] = random.choice([None, window])
    if writer in ("Qwen2Config", "Qwen3Config"):
        upper = {"sliding_window": window, "max_window_layers": random.randint(0, layers)}
        values |= {"use_sliding_window": random.random() < 0.6, **upper}
    if writer == "Gemma3TextConfig":
        values |= _gemma3(random, layers, window)
    return values


def _rope(random: Random) -> dict[str, Any]:
    kind = random.choice(["default", "linear", "llama3", "yarn"])
    values: dict[str, Any] = {"rope_type": kind, "rope_theta": random.choice([1e4, 5e5, 123.0])}
    if kind != "default":
        values["factor"] = random.choice([1.0, 2.0, 8.0])
    if kind in ("llama3", "yarn"):
        values["original_max_position_embeddings"] = random.choice([16, 64])
    if kind == "llama3":
        values |= {"low_freq_factor": 1.0, "high_freq_factor": random.choice([2.0, 4.0])}
    return values


def _gemma3(random: Random, layers: int, window: int) -> dict[str, Any]:
    return {
        "sliding_window": window,
        "layer_types": [random.choice(["sliding_attention", "full_attention"]) for _ in range(layers)],
        "query_pre_attn_scalar": random.randint(1, 64),
        "final_logit_softcapping": random.choice([None, 3.0]),
        "hidden_activation": random.choice(["gelu_pytorch_tanh", "silu"]),
    }
