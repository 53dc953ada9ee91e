"""The sampler's fast path: from logits to tokens in one call of the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula.errors import OutOfMemoryError
from fabula.kernels.compiled import ThreadPool
from fabula.kernels.library import ISAS, Library
from fabula.kernels.structures import CSampleRow

MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class RowChoice:
    """How one row chooses, in the order of application; the defaults do nothing."""

    repetition_penalty: float = 1.0  # of `tokens`
    temperature: float = 0.0  # 0: the first maximum, whatever follows
    top_k: int = 0  # equal scores at the k-th place are kept
    tail: float = -1.0  # top-p: the mass that may go; negative: everything stays
    min_p: float = 0.0
    seed: int = 0  # in [0, 2^64)
    stream: int = 0
    position: int = 0  # the index that the drawn token will have in its row
    purpose: int = 0  # of the draw; arrays/random.py names them
    tokens: np.ndarray | None = None  # Int32["L"]: prompt and new tokens; needed for the penalty only


def sample_tokens(pool: ThreadPool, logits: np.ndarray, rows: Sequence[RowChoice]) -> np.ndarray:
    """Int32["R"]: the token of each row of logits Float32["R V"]; -1 where a score is infinite or NaN.

    Draws and cuts are those of processors/ and arrays/random.py, but for roundings where a tail's mass is summed.
    """
    assert logits.dtype == np.float32
    assert logits.flags.c_contiguous
    out = np.empty(len(rows), np.int32)
    lowered = lowered_rows(rows)
    library = pool.library
    status = library.calls.fabula_sample(
        pool.address, ISAS[library.isa], logits.ctypes.data, logits.shape[1], lowered, len(rows), out.ctypes.data
    )
    if status:
        raise OutOfMemoryError(f"sampling {len(rows)} rows does not fit in memory. Use fewer rows.")
    return out


def token_uniforms(
    library: Library, key: tuple[np.ndarray, np.ndarray], position: np.ndarray, tokens: np.ndarray
) -> np.ndarray:
    """Float32["R K"]: as `token_uniforms` of arrays/random.py, of which this is the fast path, from the same words."""
    low, high, place = (np.ascontiguousarray(part, np.int32) for part in (*key, position))
    if tokens.shape[0] != 1 and tokens.strides[0] == 0:
        tokens = tokens[:1]
    tokens = np.ascontiguousarray(tokens, np.int32)
    count = tokens.shape[-1]
    step = 0 if tokens.shape[0] == 1 else count
    assert tokens.shape[0] in (1, len(place))
    out = np.empty((len(place), count), np.float32)
    words = (part.ctypes.data for part in (low, high, place))
    library.calls.fabula_uniforms(
        ISAS[library.isa], *words, len(place), tokens.ctypes.data, step, count, out.ctypes.data
    )
    return out


def lowered_rows(rows: Sequence[RowChoice]) -> Any:
    """The rows as the library takes them; they point to the rows' tokens."""
    return (CSampleRow * len(rows))(*map(_lower, rows))


def _lower(row: RowChoice) -> CSampleRow:
    counted = row.tokens if row.repetition_penalty != 1.0 else None
    assert counted is None or (counted.dtype == np.int32 and counted.flags.c_contiguous)
    return CSampleRow(
        row.temperature,
        row.tail,
        row.min_p,
        row.repetition_penalty,
        row.top_k,
        0 if counted is None else len(counted),
        None if counted is None else counted.ctypes.data,
        row.seed & MASK,
        row.seed >> 32 & MASK,
        row.stream & MASK,
        row.position & MASK,
        row.purpose,
    )
