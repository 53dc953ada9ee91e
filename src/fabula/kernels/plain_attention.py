"""Attention over a paged cache in NumPy, on the same bytes that the kernels read and write."""

from __future__ import annotations

import numpy as np

from fabula.kernels.program import Attention

BLOCK = 32  # positions a block
LANES = 16


def head_views(attention: Attention, cache: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys [blocks, kv_heads, 2, head_dim, 16] and values [blocks, kv_heads, head_dim / 16, 32, 16] of a layer."""
    dtype = np.dtype(np.float32 if attention.single else np.float16)
    heads, dim, padded = attention.kv_heads, attention.head_dim, -(-attention.head_dim // LANES) * LANES
    keys = _view(cache, attention.key_offset, dtype, (heads, BLOCK // LANES, dim, LANES))
    values = _view(cache, attention.value_offset, dtype, (heads, padded // LANES, BLOCK, LANES))
    return keys, values


def _view(cache: np.ndarray, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape)) * dtype.itemsize
    return cache[:, offset : offset + count].view(dtype).reshape(len(cache), *shape)


def write(
    attention: Attention, key: np.ndarray, value: np.ndarray, blocks: np.ndarray, offsets: np.ndarray, cache: np.ndarray
) -> None:
    """Puts keys and values [T, kv_heads * head_dim] at these places of these blocks."""
    keys, values = head_views(attention, cache)
    heads, dim, padded = attention.kv_heads, attention.head_dim, values.shape[2] * LANES
    wide = np.zeros((len(value), heads, padded), np.float32)
    wide[..., :dim] = value.reshape(-1, heads, dim)
    keys[blocks, :, offsets // LANES, :, offsets % LANES] = key.reshape(-1, heads, dim)
    values[blocks, :, :, offsets] = wide.reshape(-1, heads, padded // LANES, LANES)


def attend(
    attention: Attention, query: np.ndarray, key: np.ndarray, value: np.ndarray, rows: np.ndarray,
    positions: np.ndarray, queries: np.ndarray, tables: np.ndarray, cache: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Writes T keys and values, then attends from `queries` of the T positions: [queries, heads * head_dim]."""
    write(attention, key, value, tables[rows, positions // BLOCK], positions % BLOCK, cache)
    keys, values = head_views(attention, cache)
    out = np.zeros((len(queries), attention.heads, attention.head_dim), np.float32)
    heads = query.reshape(len(query), attention.heads, attention.head_dim)
    for row in np.unique(rows[queries]):
        mine = np.flatnonzero(rows[queries] == row)
        k, v = gathered(attention, keys, values, tables[row], int(positions[queries[mine]].max()) + 1)
        for index in mine:
            out[index] = _attend_one(attention, heads[index], k, v, int(positions[queries[index]]))
    return out.reshape(len(queries), -1)


def gathered(
    attention: Attention, keys: np.ndarray, values: np.ndarray, table: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """A row's first `length` keys and values, Float32["kv_heads length head_dim"]."""
    blocks = table[: -(-length // BLOCK)]
    k = keys[blocks].transpose(1, 0, 2, 4, 3).reshape(attention.kv_heads, -1, attention.head_dim)
    v = values[blocks].transpose(1, 0, 3, 2, 4).reshape(attention.kv_heads, len(blocks) * BLOCK, -1)
    return k[:, :length].astype(np.float32), v[:, :length, : attention.head_dim].astype(np.float32)


def _attend_one(attention: Attention, query: np.ndarray, k: np.ndarray, v: np.ndarray, position: int) -> np.ndarray:
    """One position's heads, Float32["heads head_dim"]."""
    first = max(0, position + 1 - attention.window) if attention.window else 0
    k, v = k[:, first : position + 1], v[:, first : position + 1]
    groups = query.reshape(attention.kv_heads, -1, attention.head_dim) * np.float32(attention.scale)
    scores = groups @ k.transpose(0, 2, 1)
    if attention.softcap:
        scores = np.float32(attention.softcap) * np.tanh(scores / np.float32(attention.softcap))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True) @ v).reshape(attention.heads, -1)
