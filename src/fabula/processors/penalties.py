"""Penalties on tokens that a row, or the encoder's input, already holds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.errors import ArgumentError
from fabula.processors.arguments import above_zero, matrix_of_tokens, token_ids, whole
from fabula.processors.history import mark, marked, seen_tokens
from fabula.processors.processor import LogitsProcessor, column

__all__ = [
    "EncoderRepetitionPenaltyLogitsProcessor",
    "ExponentialDecayLengthPenalty",
    "RepetitionPenaltyLogitsProcessor",
    "repeat_rows",
]


class RepetitionPenaltyLogitsProcessor(LogitsProcessor):
    """Scores of tokens that occur in the row, prompt included: divided by the penalty if positive, else multiplied.

    The first `prompt_ignore_length` tokens (a number, or one a row) do not count. Keskar et al. 2019.
    """

    numbers: ClassVar[Mapping[str, float]] = {"penalty": 1.0, "prompt_ignore_length": 0}

    def __init__(self, penalty: float, prompt_ignore_length: Any = None) -> None:
        self.penalty = above_zero("penalty", penalty, "Use 1.0 to switch it off.")
        self.prompt_ignore_length = _ignored(prompt_ignore_length)

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        ignored = column(xp, self.prompt_ignore_length, "int32", scores)
        seen = seen_tokens(xp, context, scores.shape[-1], ignored)
        return penalize(xp, scores, seen, column(xp, self.penalty, "float32", scores))

    def stack_key(self) -> Hashable | None:
        return None if isinstance(self.prompt_ignore_length, np.ndarray) else ()


class EncoderRepetitionPenaltyLogitsProcessor(LogitsProcessor):
    """The inverse penalty on tokens of the encoder's input, or the prompt: above 1 it makes them likelier."""

    def __init__(self, penalty: float, encoder_input_ids: Any) -> None:
        self.penalty = 1 / above_zero("penalty", penalty, "Use 1.0 to switch it off.")
        self.encoder_input_ids = matrix_of_tokens("encoder_input_ids", encoder_input_ids)

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        tokens = xp.asarray(repeat_rows(self.encoder_input_ids, scores.shape[0]), "int32", like=scores)
        return penalize(xp, scores, mark(xp, tokens, tokens >= 0, scores.shape[-1]), self.penalty)


class ExponentialDecayLengthPenalty(LogitsProcessor):
    """From a length on, the scores of end tokens rise by their size times (factor ** steps - 1)."""

    numbers: ClassVar[Mapping[str, float]] = {"regulation_start": 1 << 30, "regulation_factor": 1.0}

    def __init__(
        self, exponential_decay_length_penalty: tuple[int, float], eos_token_id: Any, input_ids_seq_length: int
    ) -> None:
        start, factor = exponential_decay_length_penalty
        self.regulation_start = start + input_ids_seq_length
        self.regulation_factor = above_zero("exponential_decay_length_penalty[1]", factor, "1.0 has no effect.")
        self.eos_token_id = token_ids("eos_token_id", eos_token_id)

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        start = column(xp, self.regulation_start, "int32", scores)
        steps = xp.astype(xp.maximum(context.lengths[:, None] - start, 0), "float32")
        factor = xp.zeros_like(steps) + column(xp, self.regulation_factor, "float32", scores)
        sizes = xp.abs(xp.where(xp.isfinite(scores), scores, 0.0))
        raised = scores + sizes * (xp.power(factor, steps) - 1)
        return xp.where(marked(scores, self.eos_token_id), raised, scores)

    def stack_key(self) -> Hashable:
        return self.eos_token_id


def penalize(xp: Any, scores: Any, chosen: Any, penalty: Any) -> Any:
    """Scores where `chosen` Bool["R V"] holds made worse by penalty, a number or ["R 1"]."""
    return xp.where(chosen, xp.where(scores < 0, scores * penalty, scores / penalty), scores)


def repeat_rows(matrix: np.ndarray, count: int) -> np.ndarray:
    """Rows ["B E"] each repeated to `count` rows in all, as a prompt's beams lie side by side."""
    if count % len(matrix):
        raise ArgumentError(
            f"`encoder_input_ids` must have as many rows as the scores, or a divisor of it, "
            f"got {len(matrix)} for {count}. Give one row a prompt."
        )
    return np.repeat(matrix, count // len(matrix), axis=0)


def _ignored(value: Any) -> int | np.ndarray:
    """prompt_ignore_length as a number or, one a row, Int["R 1"] on the host."""
    if value is None:
        return 0
    if not hasattr(value, "tolist") and not isinstance(value, (list, tuple)):
        return whole("prompt_ignore_length", value, 0)
    listed = value.tolist() if hasattr(value, "tolist") else list(value)
    if not isinstance(listed, list):
        return whole("prompt_ignore_length", listed, 0)
    return np.array([[whole("prompt_ignore_length", number, 0)] for number in listed], dtype=np.int32)
