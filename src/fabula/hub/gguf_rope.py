"""Rotary embedding parameters, as config.json spells them, from a GGUF file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fabula.errors import ModelFileError, NotSupportedError
from fabula.hub.gguf import GgufFile
from fabula.hub.gguf_keys import Keys

FACTORS = "rope_freqs.weight"  # what each frequency is divided by: [head_dim / 2]
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def rope_parameters(file: GgufFile, keys: Keys, head_dim: int, positions: int) -> dict[str, Any]:
    """`rope_parameters` of a model whose layers are all alike."""
    theta = keys.number("rope.freq_base", 10000.0)
    if FACTORS in file.tensors:
        return {"rope_theta": theta, **_factors(file, theta, head_dim, positions)}
    return {"rope_theta": theta, **scaling(keys, positions)}


def scaling(keys: Keys, positions: int) -> dict[str, Any]:
    """The keys under rope.scaling."""
    kind = keys.text("rope.scaling.type", "none")
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0))
    if kind == "none" or (kind == "linear" and factor == 1):
        return {"rope_type": "default"}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        raise NotSupportedError(
            f"{keys.path}: key {keys.name('rope.scaling.type')!r} must be none, linear or yarn, got {kind!r}. "
            "Use the model's Hugging Face checkpoint."
        )
    original = keys.size("rope.scaling.original_context_length", positions)
    optional = {
        "beta_fast": keys.number("rope.scaling.yarn_beta_fast", None),
        "beta_slow": keys.number("rope.scaling.yarn_beta_slow", None),
    }
    given = {name: value for name, value in optional.items() if value is not None}
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original, **given}


def _factors(file: GgufFile, theta: float, head_dim: int, positions: int) -> dict[str, Any]:
    """Llama 3's rule where the factors are its own, else the factors themselves."""
    tensor = file.tensors[FACTORS]
    if tensor.shape != (head_dim // 2,) or tensor.format != "F32":
        raise ModelFileError(
            f"{file.path}: tensor {FACTORS!r} must have {head_dim // 2} F32 numbers, got {list(tensor.shape)} of "
            f"{tensor.format}. Convert the model again."
        )
    factors = tensor.data.view("<f4").astype(np.float64)
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise ModelFileError(f"{file.path}: tensor {FACTORS!r} must be positive and finite. Convert the model again.")
    largest = float(factors.max())
    if np.allclose(factors, 1):
        return {"rope_type": "default"}
    if np.allclose(factors, _llama3_factors(theta, largest, head_dim), rtol=1e-4):
        return {"rope_type": "llama3", "factor": largest, **LLAMA3}
    listed = factors.tolist()
    exact = {"factor": 1.0, "attention_factor": 1.0, "original_max_position_embeddings": positions}
    return {"rope_type": "longrope", "short_factor": listed, "long_factor": listed, **exact}


def _llama3_factors(theta: float, factor: float, head_dim: int) -> np.ndarray:
    """What Llama 3.1's rule divides each frequency by (its release notes, `apply_scaling`)."""
    waves = 2 * math.pi * np.power(float(theta), np.arange(0, head_dim, 2) / head_dim)
    low, high, original = LLAMA3.values()
    kept = np.clip((original / waves - low) / (high - low), 0, 1)  # 1: as it was; 0: divided by `factor`
    return 1 / ((1 - kept) / factor + kept)


def by_layer_type(full: Mapping[str, Any], sliding_theta: float) -> dict[str, Any]:
    """Gemma 3's two sets: scaling is the full layers' alone."""
    return {"full_attention": dict(full), "sliding_attention": {"rope_type": "default", "rope_theta": sliding_theta}}
