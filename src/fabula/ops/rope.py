"""Rotary frequencies from a configuration: every scaling that is a fixed set of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fabula.errors import ModelFileError, NotSupportedError
from fabula.ops.specs import RopeSpec

Frequencies = tuple[np.ndarray, float]  # Float32["rotary / 2"] in radians per position, and the attention factor


def rope_spec(config: Any, layer_type: str | None = None) -> RopeSpec:
    """The rotary embedding of a layer of this type, from `config.rope_parameters` (nested by layer type or flat).

    Raises ModelFileError for impossible numbers, NotSupportedError for a scaling that moves while text grows.
    """
    parameters = config.rope_parameters
    if layer_type is not None and isinstance(parameters.get(layer_type), Mapping):
        parameters = parameters[layer_type]
    scaling = parameters["rope_type"]
    if scaling not in _SCALINGS:
        raise NotSupportedError(
            f"rope_type must be one of {', '.join(sorted(_SCALINGS))}, got {scaling!r}. "
            "Its frequencies depend on the text's length, which is not supported."
            if scaling == "dynamic"
            else f"rope_type must be one of {', '.join(sorted(_SCALINGS))}, got {scaling!r}."
        )
    dimension = _rotary_dimension(config.head_dim, parameters)
    frequencies, factor = _SCALINGS[scaling](dimension, parameters, config.max_position_embeddings)
    return RopeSpec(config.head_dim, tuple(frequencies.tolist()), factor)


def standard_rope(values: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_parameters` in today's spelling, from a config.json that uses it or the older one.

    Older: `rope_theta`, `rope_scaling` (with `type` for `rope_type`), `partial_rotary_factor`; Gemma 3's
    `rope_local_base_freq` makes it two sets, by layer type.
    """
    given = _mapping("rope_parameters", values.get("rope_parameters"))
    scaling = _mapping("rope_scaling", values.get("rope_scaling"))
    nested = {key: _mapping(key, given[key]) for key in _LAYER_TYPES if isinstance(given.get(key), Mapping)}
    if not nested and "rope_local_base_freq" not in values:
        return _complete({**given, **scaling}, values, values.get("rope_theta"))
    flat = {} if nested else {**given, **scaling}
    return {
        "full_attention": _complete(nested.get("full_attention", flat), values, values.get("rope_theta")),
        "sliding_attention": _complete(nested.get("sliding_attention", {}), values, values.get("rope_local_base_freq")),
    }


_LAYER_TYPES = ("full_attention", "sliding_attention")


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ModelFileError(f"{key} must be an object, got {value!r}. Repair config.json or fetch it again.")
    return dict(value or {})


def _complete(parameters: dict[str, Any], values: Mapping[str, Any], theta: Any) -> dict[str, Any]:
    """One set of parameters with its type, base and original length filled in."""
    kind = parameters.setdefault("rope_type", parameters.pop("type", "default"))
    if not isinstance(kind, str):
        raise ModelFileError(f"rope_type must be a string, got {kind!r}. Repair config.json or fetch it again.")
    parameters.pop("type", None)
    parameters.setdefault("rope_theta", 10000.0 if theta is None else theta)
    if values.get("partial_rotary_factor") is not None:
        parameters.setdefault("partial_rotary_factor", values["partial_rotary_factor"])
    if kind in ("llama3", "yarn", "longrope"):
        original = values.get("original_max_position_embeddings")
        if original is not None:
            parameters["original_max_position_embeddings"] = original
        parameters.setdefault("original_max_position_embeddings", values.get("max_position_embeddings"))
    return parameters


def _number(
    parameters: Mapping[str, Any], key: str, low: float, default: float | None = None, high: float = 1e12
) -> float:
    """A finite number in [low, high]."""
    value = parameters.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ModelFileError(
            f"{key} of the rope parameters must be a number in [{low:g}, {high:g}], got {value!r}. "
            "Repair config.json or fetch it again."
        )
    return value


def _rotary_dimension(head_dim: int, parameters: Mapping[str, Any]) -> int:
    dimension = int(head_dim * _number(parameters, "partial_rotary_factor", 0.0, 1.0, 1.0))
    if dimension < 2 or dimension % 2:
        raise ModelFileError(
            f"head_dim times partial_rotary_factor must be even and at least 2, got {dimension}. "
            "Repair config.json or fetch it again."
        )
    return dimension


def _wavelengths(dimension: int, parameters: Mapping[str, Any]) -> np.ndarray:
    """theta ** (2i / dimension), in float32: the positions per radian."""
    exponents = np.arange(0, dimension, 2, dtype=np.float32) / np.float32(dimension)
    theta = _number(parameters, "rope_theta", 1e-6)
    return np.power(float(theta), exponents.astype(np.float64)).astype(np.float32)


def _default(dimension: int, parameters: Mapping[str, Any], positions: int) -> Frequencies:
    return np.float32(1.0) / _wavelengths(dimension, parameters), 1.0


def _linear(dimension: int, parameters: Mapping[str, Any], positions: int) -> Frequencies:
    return _default(dimension, parameters, positions)[0] / np.float32(_number(parameters, "factor", 1e-6)), 1.0


def _llama3(dimension: int, parameters: Mapping[str, Any], positions: int) -> Frequencies:
    """Long waves stretched by `factor`, short ones kept, a ramp between (Llama 3.1's release notes)."""
    frequencies, _ = _default(dimension, parameters, positions)
    factor = np.float32(_number(parameters, "factor", 1e-6))
    low, high = _number(parameters, "low_freq_factor", 1e-6), _number(parameters, "high_freq_factor", 1e-6)
    if high <= low:
        raise ModelFileError(
            f"high_freq_factor must be greater than low_freq_factor, got {high!r} and {low!r}. "
            "Repair config.json or fetch it again."
        )
    original = _number(parameters, "original_max_position_embeddings", 1)
    waves = np.float32(2 * math.pi) / frequencies
    smooth = (np.float32(original) / waves - np.float32(low)) / np.float32(high - low)
    stretched = frequencies / factor
    blended = (1 - smooth) * frequencies / factor + smooth * frequencies
    scaled = np.where(waves > np.float32(original / low), stretched, frequencies)
    between = (waves >= np.float32(original / high)) & (waves <= np.float32(original / low))
    return np.where(between, blended, scaled).astype(np.float32), 1.0


def _yarn(dimension: int, parameters: Mapping[str, Any], positions: int) -> Frequencies:
    """Peng et al. 2023, section 3.2 and 3.4."""
    waves = _wavelengths(dimension, parameters)
    original = _number(parameters, "original_max_position_embeddings", 1)
    factor = _number(parameters, "factor", 1e-6, positions / original)
    kept = 1 - _yarn_ramp(dimension, parameters, original)
    stretched = np.float32(1.0) / (np.float32(factor) * waves)
    frequencies = stretched * (1 - kept) + np.float32(1.0) / waves * kept
    return frequencies.astype(np.float32), _yarn_attention(parameters, factor)


def _yarn_ramp(dimension: int, parameters: Mapping[str, Any], original: float) -> np.ndarray:
    """0 where a wave turns more than `beta_fast` times in the original context, 1 where less than `beta_slow`."""
    theta = _number(parameters, "rope_theta", 1.0001)

    def feature(turns: float) -> float:
        return dimension * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = feature(_number(parameters, "beta_fast", 1e-6, 32.0))
    high = feature(_number(parameters, "beta_slow", 1e-6, 1.0))
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dimension - 1)
    width = high - low if high != low else 0.001
    return np.clip((np.arange(dimension // 2, dtype=np.float32) - np.float32(low)) / np.float32(width), 0, 1)


def _yarn_attention(parameters: Mapping[str, Any], factor: float) -> float:
    def temperature(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    if parameters.get("attention_factor") is not None:
        return float(_number(parameters, "attention_factor", 0.0))
    scale, scale_all = _number(parameters, "mscale", 0.0, 0.0), _number(parameters, "mscale_all_dim", 0.0, 0.0)
    return temperature(scale) / temperature(scale_all) if scale and scale_all else temperature(1.0)


def _longrope(dimension: int, parameters: Mapping[str, Any], positions: int) -> Frequencies:
    """Ding et al. 2024. The factors for texts within the original length, which hold while it is not exceeded."""
    original = _number(parameters, "original_max_position_embeddings", 1)
    factor = _number(parameters, "factor", 1e-6, positions / original)
    short = parameters.get("short_factor")
    if not isinstance(short, list) or len(short) != dimension // 2:
        raise ModelFileError(
            f"short_factor of the rope parameters must be a list of {dimension // 2} numbers, got {short!r:.60}. "
            "Repair config.json or fetch it again."
        )
    factors = np.array([_number({"short_factor": x}, "short_factor", 1e-6) for x in short], np.float32)
    attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
    if parameters.get("attention_factor") is not None:
        attention = float(_number(parameters, "attention_factor", 0.0))
    return np.float32(1.0) / (factors * _wavelengths(dimension, parameters)), attention


_SCALINGS: Mapping[str, Callable[[int, Mapping[str, Any], int], Frequencies]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
