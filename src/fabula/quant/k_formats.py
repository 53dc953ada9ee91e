"""Super-blocks of 256 weights whose small blocks' scales are quantized too: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K."""

from __future__ import annotations

import numpy as np

# The small blocks have 16 weights (2, 3 and 6 bits) or 32 (4 and 5 bits).
Q2_K = np.dtype([("scales", "u1", 16), ("low", "u1", 64), ("scale", "<f2"), ("minimum", "<f2")])
Q3_K = np.dtype([("high", "u1", 32), ("low", "u1", 64), ("scales", "u1", 12), ("scale", "<f2")])
Q4_K = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("scales", "u1", 12), ("low", "u1", 128)])
Q5_K = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("scales", "u1", 12), ("high", "u1", 32), ("low", "u1", 128)])
Q6_K = np.dtype([("low", "u1", 128), ("high", "u1", 64), ("scales", "i1", 16), ("scale", "<f2")])


def decode_q2_k(blocks: np.ndarray) -> np.ndarray:
    """scale * (a small block's 4-bit scale) * code - minimum * (its 4-bit minimum)."""
    scale = _column(blocks, "scale") * (blocks["scales"] & 15).astype(np.float32)
    minimum = _column(blocks, "minimum") * (blocks["scales"] >> 4).astype(np.float32)
    return _scaled(_fields(blocks["low"], 32, bits=2), scale, minimum)


def decode_q3_k(blocks: np.ndarray) -> np.ndarray:
    """scale * (a 6-bit scale - 32) * (code - 4); the code's third bit is `high`'s."""
    packed = blocks["scales"]
    # Small block i's scale: lower four bits in byte i % 8 (its upper half from i = 8 on), upper two in byte 8 + i % 4.
    lower = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
    upper = np.concatenate([packed[:, 8:] >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)
    scales = (lower | upper << 4).astype(np.float32) - np.float32(32)
    codes = _fields(blocks["low"], 32, bits=2) | _fields(blocks["high"], 32, bits=1) << 2
    return _scaled(codes.astype(np.float32) - np.float32(4), _column(blocks, "scale") * scales)


def decode_q4_k(blocks: np.ndarray) -> np.ndarray:
    """scale * (a 6-bit scale) * code - minimum * (a 6-bit minimum)."""
    scale, minimum = _scales_and_minimums(blocks)
    return _scaled(_fields(blocks["low"], 32, bits=4), scale, minimum)


def decode_q5_k(blocks: np.ndarray) -> np.ndarray:
    """As Q4_K; the code's fifth bit is `high`'s."""
    scale, minimum = _scales_and_minimums(blocks)
    codes = _fields(blocks["low"], 32, bits=4) | _fields(blocks["high"], 32, bits=1) << 4
    return _scaled(codes, scale, minimum)


def decode_q6_k(blocks: np.ndarray) -> np.ndarray:
    """scale * (an 8-bit scale) * (code - 32); the code's upper two bits are `high`'s."""
    scale = _column(blocks, "scale") * blocks["scales"].astype(np.float32)
    codes = _fields(blocks["low"], 64, bits=4) | _fields(blocks["high"], 32, bits=2) << 4
    return _scaled(codes.astype(np.float32) - np.float32(32), scale)


def _column(blocks: np.ndarray, field: str) -> np.ndarray:
    return blocks[field].astype(np.float32)[:, None]


def _fields(packed: np.ndarray, run: int, bits: int) -> np.ndarray:
    """Codes [N, 256] of `bits` bits: of each `run` bytes first all lowest fields, then the next, and so on."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    fields = packed.reshape(len(packed), -1, 1, run) >> shifts & np.uint8((1 << bits) - 1)
    return fields.reshape(len(packed), 256)


def _scaled(codes: np.ndarray, scale: np.ndarray, minimum: np.ndarray | None = None) -> np.ndarray:
    """codes [N, 256] times scale [N, B], less minimum [N, B]: one of each for every 256 / B weights."""
    values = scale[:, :, None] * codes.astype(np.float32, copy=False).reshape(*scale.shape, -1)
    if minimum is not None:
        values -= minimum[:, :, None]
    return values.reshape(len(codes), 256)


def _scales_and_minimums(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eight of each, 6 bits each, in 12 bytes: bytes 0-3 and 4-7 hold the first four of either kind and, in their top
    bits, the upper two bits of the last four; bytes 8-11 hold these ones' lower four bits.
    """
    first, second, third = np.split(blocks["scales"], 3, axis=1)
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=1)
    minimums = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=1)
    return (
        _column(blocks, "scale") * scales.astype(np.float32),
        _column(blocks, "minimum") * minimums.astype(np.float32),
    )
