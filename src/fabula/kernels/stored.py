"""How one layer's keys and values lie in the blocks of a cache: what cpp/ reads and writes, in NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 32  # positions a block
LANES = 16  # positions, or features, that lie next to each other
MOST_FEATURES = 512  # of a head whose keys are codes


@dataclass(frozen=True, slots=True)
class Stored:
    """Floats, or codes of which a group of features of a head at one position shares a step and a base.

    Floats: a head's keys are [2][head_dim][16 positions], its values [head_dim / 16][32 positions][16]. Codes, of the
    features turned by `turned`, lie alike; 4-bit ones of two neighbouring features of a key, and of two neighbouring
    panels of a value, in one byte. Behind all heads' codes lie their scales, Float16[groups][step, base][32].
    """

    kv_heads: int
    head_dim: int
    bits: int  # of a number: 32 or 16 for floats, 8 or 4 for codes
    group: int  # features that share a scale, a multiple of 16; 0 for floats
    key_offset: int  # bytes into a block
    value_offset: int

    @property
    def coded(self) -> bool:
        """Whether codes are stored."""
        return self.bits < 16

    @property
    def groups(self) -> int:
        """Of a head."""
        return -(-self.head_dim // self.group) if self.coded else 0

    @property
    def value_width(self) -> int:
        """A value's features in whole panels, and in whole bytes of them."""
        unit = 2 * LANES if self.bits == 4 else LANES
        return -(-self.head_dim // unit) * unit

    @property
    def key_bytes(self) -> int:
        """Of a block's keys."""
        return self._part_bytes(self.head_dim)

    @property
    def value_bytes(self) -> int:
        """Of a block's values."""
        return self._part_bytes(self.value_width)

    def _part_bytes(self, width: int) -> int:
        return self.kv_heads * BLOCK * (width * self.bits // 8 + 4 * self.groups)


def write(
    stored: Stored, keys: np.ndarray, values: np.ndarray, blocks: np.ndarray, offsets: np.ndarray, cache: np.ndarray
) -> None:
    """Puts keys and values, Float["T kv_heads head_dim"], at places `offsets` of `blocks`, each Int["T"]."""
    there_keys, there_values = _views(stored, cache)
    if not stored.coded:
        there_keys[blocks, :, offsets // LANES, :, offsets % LANES] = keys
        there_values[blocks, :, :, offsets] = _in_panels(stored, values)
        return
    for part, given in enumerate((keys, values)):
        codes, scales = _coded(stored, np.asarray(given, np.float32))
        _scales(stored, cache, part)[blocks, :, :, :, offsets] = scales
        if part == 0:
            there_keys[blocks, :, offsets // LANES, :, offsets % LANES] = _packed(stored, codes, 1)
        else:
            there_values[blocks, :, :, offsets] = _packed(stored, _in_panels(stored, codes), 2)


def gathered(stored: Stored, blocks: np.ndarray, length: int, cache: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first `length` keys and values of a row's blocks, each Float32["kv_heads length head_dim"]."""
    keys, values = (view[blocks] for view in _views(stored, cache))
    keys, values = _unpacked(stored, keys, 3), _unpacked(stored, values, 2)
    k = keys.transpose(1, 0, 2, 4, 3).reshape(stored.kv_heads, -1, stored.head_dim)
    v = values.transpose(1, 0, 3, 2, 4).reshape(stored.kv_heads, len(blocks) * BLOCK, -1)[..., : stored.head_dim]
    if stored.coded:
        k, v = (_restored(stored, codes, _scales(stored, cache, part)[blocks]) for part, codes in enumerate((k, v)))
    return k[:, :length].astype(np.float32), v[:, :length].astype(np.float32)


def turned(x: np.ndarray) -> np.ndarray:
    """Heads Float32["... head_dim"] times an orthogonal matrix that is its own inverse, so that none stands out.

    It is the Hadamard matrix (Ashkboos et al. 2024, QuaRot) of the largest power of two that divides head_dim.
    """
    features = x.shape[-1]
    size = features & -features
    y, half = x.reshape(-1, size), 1
    while half < size:
        pairs = y.reshape(-1, size // (2 * half), 2, half)
        left, right = pairs[:, :, 0], pairs[:, :, 1]
        y, half = np.stack([left + right, left - right], 2).reshape(-1, size), 2 * half
    return (y * np.float32(size**-0.5)).reshape(x.shape)


def _views(stored: Stored, cache: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All blocks' keys, [blocks heads 2 features 16], and values, [blocks heads panels 32 16]; or bytes of codes."""
    share = 2 if stored.bits == 4 else 1
    kind = np.dtype({32: np.float32, 16: np.float16}.get(stored.bits, np.uint8))
    shapes = (
        (stored.kv_heads, BLOCK // LANES, stored.head_dim // share, LANES),
        (stored.kv_heads, stored.value_width // LANES // share, BLOCK, LANES),
    )
    offsets = (stored.key_offset, stored.value_offset)
    keys, values = (_view(cache, *pair, kind) for pair in zip(offsets, shapes, strict=True))
    return keys, values


def _scales(stored: Stored, cache: np.ndarray, part: int) -> np.ndarray:
    """Float16["blocks heads groups 2 32"]: the steps and bases of keys (0) or of values (1)."""
    offset, width = ((stored.key_offset, stored.head_dim), (stored.value_offset, stored.value_width))[part]
    behind = offset + stored.kv_heads * BLOCK * width * stored.bits // 8
    return _view(cache, behind, (stored.kv_heads, stored.groups, 2, BLOCK), np.dtype(np.float16))


def _view(cache: np.ndarray, offset: int, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    count = int(np.prod(shape)) * kind.itemsize
    return cache[:, offset : offset + count].view(kind).reshape(len(cache), *shape)


def _in_panels(stored: Stored, values: np.ndarray) -> np.ndarray:
    """["T heads head_dim"] as ["T heads panels 16"]."""
    wide = np.zeros((*values.shape[:2], stored.value_width), values.dtype)
    wide[..., : stored.head_dim] = values
    return wide.reshape(*values.shape[:2], -1, LANES)


def _coded(stored: Stored, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes UInt8["T heads head_dim"], and scales Float16["T heads groups 2"], of Float32["T heads head_dim"]."""
    heads, most_code = turned(x), np.float32(2**stored.bits - 1)
    codes, scales = np.empty(x.shape, np.uint8), np.empty((*x.shape[:2], stored.groups, 2), np.float16)
    for group in range(stored.groups):
        own = slice(group * stored.group, (group + 1) * stored.group)
        least, most = heads[..., own].min(-1), heads[..., own].max(-1)
        scales[:, :, group] = np.stack([(most - least) / most_code, least], -1)
        step, base = (scales[:, :, group, each, None].astype(np.float32) for each in range(2))
        codes[..., own] = np.rint((heads[..., own] - base) / np.maximum(step, np.float32(1e-7))).clip(0, most_code)
    return codes, scales


def _restored(stored: Stored, codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Float32["heads positions head_dim"] from codes, and scales of blocks ["B heads groups 2 32"]."""
    found = scales.transpose(1, 0, 4, 2, 3).reshape(stored.kv_heads, -1, stored.groups, 2).astype(np.float32)
    step, base = np.repeat(found, stored.group, 2)[:, :, : stored.head_dim].transpose(3, 0, 1, 2)
    return turned(codes * step + base)


def _packed(stored: Stored, codes: np.ndarray, axis: int) -> np.ndarray:
    """Two neighbours along the last or the last but one axis (1 or 2) in a byte, if codes have 4 bits."""
    if stored.bits == 8:
        return codes
    low, high = (codes[..., each::2] if axis == 1 else codes[..., each::2, :] for each in range(2))
    return low | high << 4


def _unpacked(stored: Stored, codes: np.ndarray, axis: int) -> np.ndarray:
    """The inverse, along an axis of ["blocks heads ..."]."""
    if stored.bits != 4:
        return codes
    both = np.stack([codes & 15, codes >> 4], axis + 1)
    return both.reshape(*codes.shape[:axis], -1, *codes.shape[axis + 1 :])
