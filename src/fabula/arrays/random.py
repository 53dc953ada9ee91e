"""Random numbers that depend only on what they are for: the same on every framework, in any batch, after any pause.

The generator is Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"):
a function of a key of two 32-bit words and a counter of two 32-bit words, to two 32-bit words. Sums are modulo 2^32.

How a token's noise is keyed:

1. seed, 64 bits, is the key (seed modulo 2^32, seed divided by 2^32); the counter is (stream, purpose).
   The two words that come out are the row's key.
2. With the row's key, the counter is (position, token id). The first word that comes out is the token's bits; the
   second is not used. `position` is the index that the drawn token will have in its row, prompt included.
3. The 23 high bits, as an integer h = bits >> 9, give u = (h + 0.5) * 2^-23 in float32: exact, and never 0 or 1
   (a 24th bit would round the highest u to 1).
4. The noise is -log(-log(u)) in float32: a standard Gumbel variable.

The token of the highest score + noise is a draw from softmax(scores) (Gumbel 1954), so only tokens with a finite score
need bits. Equal sums: the lowest token id wins.

Words are held as int32 bit patterns, as JAX has no int64 by default and PyTorch few operations on unsigned integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fabula.arrays import numpy as host
from fabula.errors import ArgumentError

__all__ = [
    "PURPOSE_TOKEN",
    "gumbel",
    "joined_seed",
    "noise_of_bits",
    "noise_of_uniforms",
    "row_key",
    "split_seed",
    "threefry",
    "token_bits",
    "token_bits_in_place",
    "token_uniforms",
    "uniforms_of_bits",
]

Words = tuple[Any, Any]  # two Int32 arrays of one shape, each a 32-bit word

PURPOSE_TOKEN = 0  # the choice of the next token; drafters draw with it too, so that their draws can stand

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
NEAR = 4096  # columns that are worked on at a time where arrays are in a CPU's memory


def split_seed(seed: int) -> tuple[int, int]:
    """The low and the high word of a seed in [0, 2^64), as signed 32-bit integers."""
    if not 0 <= seed < 1 << 64:
        raise ArgumentError(f"`seed` must be in [0, 2**64), got {seed}. Use seed % 2**64.")
    return _signed(seed & 0xFFFFFFFF), _signed(seed >> 32)


def joined_seed(low: int, high: int) -> int:
    """The seed of these words."""
    return (low & 0xFFFFFFFF) | (high & 0xFFFFFFFF) << 32


def _signed(word: int) -> int:
    return word - (1 << 32) if word >= 1 << 31 else word


def _rotate_left(xp: Any, x: Any, count: int) -> Any:
    low_bits = (1 << count) - 1  # right_shift copies the sign, which the mask removes
    return xp.left_shift(x, count) | (xp.right_shift(x, 32 - count) & low_bits)


def threefry(xp: Any, key: Words, counter: Words) -> Words:
    """Threefry-2x32-20 of arrays of words that broadcast together."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ PARITY)
    x, y = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(1, 6):
        for count in ROTATIONS[(group + 1) % 2]:
            x = x + y
            y = _rotate_left(xp, y, count) ^ x
        x = x + keys[group % 3]
        y = y + keys[(group + 1) % 3] + group
    return x, y


def row_key(xp: Any, seed: Words, stream: Any, purpose: Any = PURPOSE_TOKEN) -> Words:
    """The rows' keys, from their seeds (low and high words, Int["R"]) and streams, Int["R"]."""
    return threefry(xp, seed, (stream, xp.zeros_like(stream) + purpose))


def token_bits(xp: Any, key: Words, position: Any, tokens: Any) -> Any:
    """Int["R K"]: the bits of tokens Int["R K"] (or Int["1 K"]) at position Int["R"], under the rows' keys."""
    columns = (key[0][:, None], key[1][:, None])
    return threefry(xp, columns, (position[:, None], tokens))[0]


def token_bits_in_place(key: tuple[np.ndarray, np.ndarray], position: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """token_bits on NumPy arrays without a new array an operation, a few columns at a time, which stay near."""
    words = [np.asarray(part, np.int32).view(np.uint32)[:, None] for part in (*key, position)]
    keys = (words[0], words[1], words[0] ^ words[1] ^ np.uint32(PARITY))
    bits = np.empty((len(position), tokens.shape[-1]), np.uint32)
    for first in range(0, tokens.shape[-1], NEAR):
        x, columns = bits[:, first : first + NEAR], tokens[:, first : first + NEAR].astype(np.int32).view(np.uint32)
        y = columns + keys[1]
        np.add(words[2], keys[0], out=x)
        turned = np.empty_like(y)
        for group in range(1, 6):
            for count in ROTATIONS[(group + 1) % 2]:
                x += y
                np.left_shift(y, count, out=turned)
                y >>= 32 - count
                y |= turned
                y ^= x
            x += keys[group % 3]
            y += keys[(group + 1) % 3] + np.uint32(group)
    return bits.view(np.int32)


def uniforms_of_bits(xp: Any, bits: Any) -> Any:
    """Float32 numbers in (0, 1) of words."""
    high = xp.right_shift(bits, 9) & 0x7FFFFF
    return (xp.astype(high, "float32") + 0.5) * 2.0**-23


def token_uniforms(key: tuple[np.ndarray, np.ndarray], position: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Float32["R K"]: the numbers in (0, 1) of token_bits, on NumPy arrays."""
    return uniforms_of_bits(host, token_bits_in_place(key, position, tokens))


def noise_of_uniforms(xp: Any, uniforms: Any) -> Any:
    """Float32 Gumbel noise of numbers in (0, 1)."""
    return -xp.log(-xp.log(uniforms))


def noise_of_bits(xp: Any, bits: Any) -> Any:
    """Float32 Gumbel noise of words."""
    return noise_of_uniforms(xp, uniforms_of_bits(xp, bits))


def gumbel(xp: Any, seed: Words, stream: Any, position: Any, tokens: Any, purpose: int = PURPOSE_TOKEN) -> Any:
    """Float32["R K"]: the noise of tokens Int["R K"] (or Int["1 K"]) in R rows; all other arguments are Int["R"]."""
    return noise_of_bits(xp, token_bits(xp, row_key(xp, seed, stream, purpose), position, tokens))
