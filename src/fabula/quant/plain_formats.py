"""Blocks of 32 weights with one scale, and in the `_1` formats one minimum: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0."""

from __future__ import annotations

import numpy as np

from fabula.errors import ArgumentError

# A block's 4-bit codes: byte i holds weight i in its lower half and weight i + 16 in its upper half.
# `high` of the 5-bit formats: bit i is the fifth bit of weight i.
Q4_0 = np.dtype([("scale", "<f2"), ("low", "u1", 16)])
Q4_1 = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("low", "u1", 16)])
Q5_0 = np.dtype([("scale", "<f2"), ("high", "u1", 4), ("low", "u1", 16)])
Q5_1 = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("high", "u1", 4), ("low", "u1", 16)])
Q8_0 = np.dtype([("scale", "<f2"), ("codes", "i1", 32)])


def decode_q4_0(blocks: np.ndarray) -> np.ndarray:
    """scale * (code - 8)."""
    return _column(blocks, "scale") * (_low_bits(blocks) - np.float32(8))


def decode_q4_1(blocks: np.ndarray) -> np.ndarray:
    """scale * code + minimum."""
    return _column(blocks, "scale") * _low_bits(blocks) + _column(blocks, "minimum")


def decode_q5_0(blocks: np.ndarray) -> np.ndarray:
    """scale * (code - 16)."""
    return _column(blocks, "scale") * (_five_bits(blocks) - np.float32(16))


def decode_q5_1(blocks: np.ndarray) -> np.ndarray:
    """scale * code + minimum."""
    return _column(blocks, "scale") * _five_bits(blocks) + _column(blocks, "minimum")


def decode_q8_0(blocks: np.ndarray) -> np.ndarray:
    """scale * code."""
    return blocks["codes"].astype(np.float32) * _column(blocks, "scale")


def encode_q4_0(values: np.ndarray) -> np.ndarray:
    """The weight of the greatest magnitude becomes code 0, which stands for -8."""
    extreme = np.take_along_axis(values, np.abs(values).argmax(axis=1, keepdims=True), axis=1)
    scale = extreme / np.float32(-8)
    codes = np.trunc(values * _inverse(scale) + np.float32(8.5)).astype(np.uint8).clip(0, 15)
    blocks = np.empty(len(values), Q4_0)
    blocks["scale"] = _half(scale)
    blocks["low"] = codes[:, :16] | codes[:, 16:] << 4
    return blocks


def encode_q4_1(values: np.ndarray) -> np.ndarray:
    """The least weight becomes code 0, the greatest code 15."""
    minimum = values.min(axis=1, keepdims=True)
    scale = (values.max(axis=1, keepdims=True) - minimum) / np.float32(15)
    codes = np.trunc((values - minimum) * _inverse(scale) + np.float32(0.5)).astype(np.uint8).clip(0, 15)
    blocks = np.empty(len(values), Q4_1)
    blocks["scale"], blocks["minimum"] = _half(scale), _half(minimum)
    blocks["low"] = codes[:, :16] | codes[:, 16:] << 4
    return blocks


def encode_q8_0(values: np.ndarray) -> np.ndarray:
    """The weight of the greatest magnitude becomes code 127 or -127; ties are rounded away from zero."""
    scale = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    scaled = values * _inverse(scale)
    magnitude = np.abs(scaled)
    whole = np.floor(magnitude)
    blocks = np.empty(len(values), Q8_0)
    blocks["scale"] = _half(scale)
    blocks["codes"] = (np.sign(scaled) * (whole + np.floor(2 * (magnitude - whole)))).astype(np.int8)
    return blocks


def _column(blocks: np.ndarray, field: str) -> np.ndarray:
    return blocks[field].astype(np.float32)[:, None]


def _codes(blocks: np.ndarray) -> np.ndarray:
    low = blocks["low"]
    return np.concatenate([low & 15, low >> 4], axis=1)


def _low_bits(blocks: np.ndarray) -> np.ndarray:
    return _codes(blocks).astype(np.float32)


def _five_bits(blocks: np.ndarray) -> np.ndarray:
    high = np.unpackbits(blocks["high"], axis=1, bitorder="little")
    return (_codes(blocks) | high << 4).astype(np.float32)


def _inverse(scale: np.ndarray) -> np.ndarray:
    """1 / scale, and 0 where the scale is 0."""
    return np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)


def _half(numbers: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        halves = numbers[:, 0].astype("<f2")
    if not np.isfinite(halves).all():
        raise ArgumentError(
            "weights must be finite and their scales within float16 to be quantized, got "
            f"{float(numbers[~np.isfinite(halves)][0, 0])!r}. Store this weight as F32 or BF16."
        )
    return halves
