"""Small models of every family whose weights follow from their names: the same bits in any version of any library."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from safetensors.numpy import save_file

from fabula.models.families.config import ModelConfig
from fabula.models.families.family import Entry
from fabula.models.families.table import family_for
from fabula.models.weights.table import all_entries

VOCABULARY = 61
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
ROTARY = {
    **TOKENS,
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
}
LAYERED = {
    **TOKENS,
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 6,
    "n_head": 4,
    "n_positions": 256,
}
# Windows are shorter than the texts.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **ROTARY, "tie_word_embeddings": False},
    "mistral": {
        "model_type": "mistral",
        "architectures": ["MistralForCausalLM"],
        **ROTARY,
        "tie_word_embeddings": False,
        "sliding_window": 9,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        **ROTARY,
        "tie_word_embeddings": True,
        "sliding_window": 9,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    },
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], **ROTARY, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], **ROTARY, "tie_word_embeddings": False},
    "gpt2": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **LAYERED, "tie_word_embeddings": True},
}

# Distances reach their last bucket within the texts.
ENCODERS: dict[str, dict[str, Any]] = {
    "t5": {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_decoder_layers": 4,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 7,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
    },
}
CONFIGURATIONS = {**FAMILIES, **ENCODERS}


def write_tiny(family: str, folder: Path) -> Path:
    """Writes the family's config.json and model.safetensors. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGURATIONS[family]), encoding="utf-8")
    save_file(weights(family), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def weights(family: str) -> dict[str, np.ndarray]:
    """The family's float32 tensors by their names in a checkpoint."""
    config = CONFIGURATIONS[family]
    tied = config["tie_word_embeddings"]
    entries = [entry for _, entry in all_entries(family_for(ModelConfig.from_dict(config)))]
    wanted = [entry for entry in entries if not entry.optional and not (entry.tied and (tied or _shared(entry)))]
    return {entry.name: weight(family, entry.name, entry.shape) for entry in wanted}


def _shared(entry: Entry) -> bool:
    """Whether it is one side's name of the table that an encoder and a decoder have in common."""
    return entry.name.endswith(".embed_tokens.weight")


def weight(family: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One tensor: vectors near what leaves activations alone, matrices that keep their size or make it a little more.

    The bits are PCG64's raw ones, which NumPy promises to keep; what is made of them is exact in float32.
    """
    bits = np.random.PCG64(crc32(f"{family}/{name}".encode())).random_raw(math.prod(shape))
    noise = ((bits >> np.uint64(48)).astype(np.float32) / np.float32(1 << 15) - 1).reshape(shape)  # in [-1, 1)
    if len(shape) == 1:
        return np.float32(resting(family, name)) + noise / np.float32(4)
    tied = CONFIGURATIONS[family]["tie_word_embeddings"]  # such a model would repeat itself if its layers were not loud
    size = 2 if shape[0] == VOCABULARY else 4 if tied else 1
    return noise * np.float32(size * 2.0 ** round(math.log2((3 / shape[-1]) ** 0.5)))


def resting(family: str, name: str) -> float:
    """What a vector is around: Gemma's norms are stored less one, and those after a half of a layer make it loud."""
    if family == "gemma3":
        return 3.0 if ".post_" in name else 0.0
    return 0.0 if name.endswith("bias") else 1.0


def prompts(family: str, count: int = 3) -> list[list[int]]:
    """Rows of ids of growing length, the last longer than the windows."""
    bits = np.random.PCG64(crc32(f"{family}/prompts".encode())).random_raw(64).tolist()
    ids = iter(3 + bit % (VOCABULARY - 3) for bit in bits)
    return [[next(ids) for _ in range(length)] for length in (2, 7, 13, 5, 11)[:count]]
