"""Attention over a paged cache or a memory in NumPy, on the same bytes that the kernels read and write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fabula.kernels.program import Attention
from fabula.kernels.stored import BLOCK, Stored, gathered, write

_Pair = tuple[np.ndarray, np.ndarray]  # keys and values, each Float32["kv_heads length head_dim"]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the T positions of a step are, and which of them ask."""

    rows: np.ndarray  # Int["T"]
    positions: np.ndarray  # Int["T"]: in their rows
    queries: np.ndarray  # Int["Q"]: indices into [0, T)
    tables: np.ndarray  # Int["R B"]
    columns: np.ndarray | None = None  # Int["T"]: what distances are counted in; None: positions


def store(stored: Stored, key: np.ndarray, value: np.ndarray, places: Places, cache: np.ndarray) -> None:
    """Writes T keys and values, each Float32["T kv_heads * head_dim"]."""
    shape = (-1, stored.kv_heads, stored.head_dim)
    blocks = places.tables[places.rows, places.positions // BLOCK]
    write(stored, key.reshape(shape), value.reshape(shape), blocks, places.positions % BLOCK, cache)


def attend(
    attention: Attention, query: np.ndarray, places: Places, cache: np.ndarray, both: bool = False
) -> np.ndarray:
    """What the queries find up to their own positions, or in all of their rows: [Q, heads * head_dim]."""

    def keys_of(row: int, asking: np.ndarray) -> _Pair:
        length = int(places.positions[places.rows == row if both else asking].max()) + 1
        return gathered(attention.stored, places.tables[row][: -(-length // BLOCK)], length, cache)

    return _attend_rows(attention, query, places, keys_of, not both)


def attend_memory(
    attention: Attention, query: np.ndarray, places: Places, memories: Sequence[tuple[np.ndarray, int]]
) -> np.ndarray:
    """What the queries find in their rows' memories, each UInt8["blocks bytes"] and how many positions it has."""

    def keys_of(row: int, _: np.ndarray) -> _Pair:
        data, length = memories[row]
        return gathered(attention.stored, np.arange(-(-length // BLOCK)), length, data)

    return _attend_rows(attention, query, places, keys_of, False)


def _attend_rows(
    attention: Attention,
    query: np.ndarray,
    places: Places,
    keys_of: Callable[[int, np.ndarray], _Pair],
    causal: bool,
) -> np.ndarray:
    """`keys_of`: of a row, and of those of its positions that ask."""
    asking = query.reshape(len(query), attention.heads, attention.stored.head_dim)
    out = np.zeros(asking.shape, np.float32)
    rows = places.rows[places.queries]
    for row in np.unique(rows):
        mine = np.flatnonzero(rows == row)
        k, v = keys_of(int(row), places.queries[mine])
        for index in mine:
            position = int(places.positions[places.queries[index]])
            columns = np.arange(k.shape[1]) if places.columns is None else places.columns[places.rows == row]
            out[index] = _attend_one(attention, asking[index], k, v, position, causal, columns)
    return out.reshape(len(query), -1)


def _attend_one(
    attention: Attention,
    query: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    position: int,
    causal: bool,
    columns: np.ndarray,
) -> np.ndarray:
    """One position's heads, Float32["heads head_dim"]."""
    first = max(0, position + 1 - attention.window) if attention.window else 0
    end = position + 1 if causal else k.shape[1]
    k, v = k[:, first:end], v[:, first:end]
    groups = query.reshape(len(k), -1, k.shape[2]) * np.float32(attention.scale)
    with np.errstate(invalid="ignore"):  # BLAS may compute with what lies behind rows of odd widths, and drop it
        scores = groups @ k.transpose(0, 2, 1)
    if attention.softcap:
        scores = np.float32(attention.softcap) * np.tanh(scores / np.float32(attention.softcap))
    if attention.bias is not None:
        far = attention.bias.shape[1] // 2
        distances = columns[first:end] - columns[position]
        scores = scores + attention.bias[:, distances.clip(-far, far) + far].reshape(scores.shape)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    with np.errstate(invalid="ignore"):
        return (weights / weights.sum(axis=-1, keepdims=True) @ v).reshape(attention.heads, -1)
