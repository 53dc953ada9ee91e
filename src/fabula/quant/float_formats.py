"""Weights stored one by one: float32, float16 and bfloat16."""

from __future__ import annotations

import numpy as np

F32 = np.dtype("<f4")
F16 = np.dtype("<f2")
BF16 = np.dtype("<u2")  # NumPy has no bfloat16: the upper half of a float32's bits


def decode_f32(blocks: np.ndarray) -> np.ndarray:
    """The numbers themselves."""
    return blocks


def encode_f32(values: np.ndarray) -> np.ndarray:
    """The numbers themselves."""
    return values[:, 0]


def decode_f16(blocks: np.ndarray) -> np.ndarray:
    """Exact: every float16 is a float32."""
    return blocks.astype(np.float32)[:, None]


def encode_f16(values: np.ndarray) -> np.ndarray:
    """Rounded to the nearest, ties to even; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        return values[:, 0].astype(F16)


def decode_bf16(blocks: np.ndarray) -> np.ndarray:
    """Exact: the lower half of the bits is zero."""
    return (blocks.astype(np.uint32) << 16).view(np.float32)[:, None]


def encode_bf16(values: np.ndarray) -> np.ndarray:
    """Rounded to the nearest, ties to even; NaN stays NaN, made quiet."""
    bits = np.ascontiguousarray(values[:, 0]).view(np.uint32)
    upper = bits >> np.uint32(16)
    # Adding just under half of the lower half carries into the upper one; a NaN's bits could carry into its sign.
    rounded = (bits + (np.uint32(0x7FFF) + (upper & np.uint32(1)))) >> np.uint32(16)
    quiet = upper | np.uint32(0x0040)
    return np.where((bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000), quiet, rounded).astype(BF16)
