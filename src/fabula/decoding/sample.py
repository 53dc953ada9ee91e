"""The best token, or a draw from the distribution: greedy and sampled rows side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from fabula import arrays
from fabula.arrays import numpy as host
from fabula.arrays.random import (
    PURPOSE_TOKEN,
    noise_of_bits,
    noise_of_uniforms,
    row_key,
    token_bits,
    token_uniforms,
)
from fabula.decoding.strategy import Choice, Draw, Turn
from fabula.errors import NumericalError
from fabula.kernels import sampling
from fabula.kernels.library import shared_library
from fabula.taps import NO_TAPS, Taps

__all__ = ["SAMPLE", "Draw", "Sample", "best_tokens", "drawn_tokens"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One token a row: the first maximum of the scores or, in sampled rows, a keyed draw from their softmax."""

    taps: Taps = NO_TAPS

    def choose(self, turn: Turn) -> Choice:
        """The tokens of R rows. Raises NumericalError where a row's scores hold no finite number."""
        xp = arrays.of(turn.logits)
        scores = turn.processed(xp.astype(turn.logits, "float32"))
        tokens = choose_tokens(xp, scores, turn.draw)
        check_chosen(xp, scores, tokens)
        return Choice(tokens, scores)


SAMPLE = Sample()


def choose_tokens(xp: Any, scores: Any, draw: Draw) -> Any:
    """Int["R"]: drawn where `draw.sampled` holds, else the best; noise is made only for rows that need it."""
    if not draw.sampled.any():
        return best_tokens(xp, scores)
    if draw.sampled.all():
        return drawn_tokens(xp, scores, draw)
    chosen = np.flatnonzero(draw.sampled).astype(np.int32)
    rows = xp.asarray(chosen, "int32", like=scores)
    drawn = drawn_tokens(xp, xp.take(scores, rows), draw.select(chosen))
    return xp.set_rows(best_tokens(xp, scores), rows, drawn)


def best_tokens(xp: Any, scores: Any) -> Any:
    """Int["R"]: the first maximum."""
    return xp.argmax(scores)


def drawn_tokens(xp: Any, scores: Any, draw: Draw, purpose: int = PURPOSE_TOKEN) -> Any:
    """Int["R"]: draws from softmax(scores), as arrays/random.py keys them."""
    tokens, values = xp.survivors(scores)
    noise = noise_of(xp, draw, tokens, purpose)
    winner = xp.argmax(values + noise)
    return xp.take_along_axis(tokens, winner[:, None])[:, 0]


def noise_of(xp: Any, draw: Draw, tokens: Any, purpose: Any = PURPOSE_TOKEN) -> Any:
    """Float32["R K"]: the noise of tokens Int["R K"]; the rows' keys are made on the host, which has all for them.

    `purpose` is a number or Int["R"].
    """
    parts = (draw.seed_low, draw.seed_high, draw.stream, np.broadcast_to(np.int32(purpose), draw.stream.shape))
    key = _row_key(*(part.astype(np.int32).tobytes() for part in parts))
    if not arrays.on_host(tokens):
        key = tuple(xp.asarray(part, "int32", like=tokens) for part in key)
    position = draw.position if arrays.on_host(tokens) else xp.asarray(draw.position, "int32", like=tokens)
    return keyed_noise(xp, key, position, tokens)


def keyed_noise(xp: Any, key: tuple[Any, Any], position: Any, tokens: Any) -> Any:
    """Float32["R K"]: the noise of tokens Int["R K"] under the rows' keys, at positions Int["R"]."""
    if arrays.on_host(tokens):
        low, high, place = (arrays.of(part).to_host(part) for part in (*key, position))
        uniforms = _on_host((low, high), place, xp.to_host(tokens))
        return noise_of_uniforms(xp, xp.asarray(uniforms, "float32", like=tokens))
    return noise_of_bits(xp, token_bits(xp, key, position, tokens))


def _on_host(key: tuple[np.ndarray, np.ndarray], position: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Float32["R K"]: the tokens' numbers in (0, 1), by the kernels where they are built."""
    library = shared_library()
    if library is None:
        return token_uniforms(key, position, tokens)
    return sampling.token_uniforms(library, key, position, tokens)


@lru_cache(maxsize=64)  # a row's key stays the same from token to token
def _row_key(*words: bytes) -> tuple[np.ndarray, np.ndarray]:
    low, high, stream, purpose = (np.frombuffer(part, np.int32) for part in words)
    return row_key(host, (low, high), stream, purpose)


def check_chosen(xp: Any, scores: Any, tokens: Any) -> None:
    """Raises NumericalError if a row's token has no number for a score: an argmax finds NaN, or -inf if all are."""
    chosen = xp.to_host(xp.take_along_axis(scores, tokens[:, None]))[:, 0]
    lost = np.flatnonzero(~(chosen > -np.inf))
    if len(lost):
        reason = "NaN" if np.isnan(chosen[lost]).any() else "-inf only"
        raise NumericalError(
            f"`scores` must hold a finite number in every row, got {reason} in row {lost[0]}. Look for a processor "
            "that removes every token, or for NaN in the model's logits; remove_invalid_values=True goes on regardless."
        )
