"""Attention over a paged cache in NumPy, on the same bytes that the kernels read and write."""

from __future__ import annotations

import numpy as np

from fabula.kernels.program import Attention
from fabula.kernels.stored import BLOCK, gathered, write


def attend(
    attention: Attention, query: np.ndarray, key: np.ndarray, value: np.ndarray, rows: np.ndarray,
    positions: np.ndarray, queries: np.ndarray, tables: np.ndarray, cache: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Writes T keys and values, then attends from `queries` of the T positions: [queries, heads * head_dim]."""
    stored = attention.stored
    heads = (stored.kv_heads, stored.head_dim)
    new = (key.reshape(-1, *heads), value.reshape(-1, *heads))
    write(stored, *new, tables[rows, positions // BLOCK], positions % BLOCK, cache)
    out = np.zeros((len(queries), attention.heads, stored.head_dim), np.float32)
    asking = query.reshape(len(query), attention.heads, stored.head_dim)
    for row in np.unique(rows[queries]):
        mine = np.flatnonzero(rows[queries] == row)
        length = int(positions[queries[mine]].max()) + 1
        k, v = gathered(stored, tables[row][: -(-length // BLOCK)], length, cache)
        for index in mine:
            out[index] = _attend_one(attention, asking[index], k, v, int(positions[queries[index]]))
    return out.reshape(len(queries), -1)


def _attend_one(attention: Attention, query: np.ndarray, k: np.ndarray, v: np.ndarray, position: int) -> np.ndarray:
    """One position's heads, Float32["heads head_dim"]."""
    first = max(0, position + 1 - attention.window) if attention.window else 0
    k, v = k[:, first : position + 1], v[:, first : position + 1]
    groups = query.reshape(len(k), -1, k.shape[2]) * np.float32(attention.scale)
    scores = groups @ k.transpose(0, 2, 1)
    if attention.softcap:
        scores = np.float32(attention.softcap) * np.tanh(scores / np.float32(attention.softcap))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True) @ v).reshape(attention.heads, -1)
