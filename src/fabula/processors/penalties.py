"""Penalties on tokens that a row, or the encoder's input, already holds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.errors import ArgumentError
from fabula.processors.arguments import above_zero, matrix_of_tokens, token_ids, whole
from fabula.processors.history import in_vocabulary, listed, occurring
from fabula.processors.processor import LogitsProcessor, column
from fabula.processors.token_lists import as_numbers

__all__ = [
    "EncoderRepetitionPenaltyLogitsProcessor",
    "ExponentialDecayLengthPenalty",
    "RepetitionPenaltyLogitsProcessor",
    "encoder_key",
    "encoder_rows",
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
        penalty = column(xp, self.penalty, "float32", scores)
        if context.seen is not None and isinstance(ignored, int) and ignored == 0:
            return xp.where(context.seen, worse(xp, scores, penalty), scores)
        return penalize(xp, scores, context.tokens, occurring(xp, context, scores.shape[-1], ignored), penalty)

    def stack_key(self) -> Hashable | None:
        return None if isinstance(self.prompt_ignore_length, np.ndarray) else ()


class EncoderRepetitionPenaltyLogitsProcessor(LogitsProcessor):
    """The inverse penalty on tokens of the encoder's input, or the prompt: above 1 it makes them likelier."""

    numbers: ClassVar[Mapping[str, float]] = {"penalty": 1.0}

    def __init__(self, penalty: float, encoder_input_ids: Any) -> None:
        self.penalty = 1 / above_zero("penalty", penalty, "Use 1.0 to switch it off.")
        self.encoder_input_ids = matrix_of_tokens("encoder_input_ids", encoder_input_ids)

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        tokens, penalty = encoder_rows(self.encoder_input_ids, scores), column(xp, self.penalty, "float32", scores)
        return penalize(xp, scores, tokens, in_vocabulary(tokens, tokens >= 0, scores.shape[-1]), penalty)

    def stack_key(self) -> Hashable | None:
        return encoder_key(self.encoder_input_ids)

    listed = as_numbers("encoder_input_ids")


class ExponentialDecayLengthPenalty(LogitsProcessor):
    """From a length on, the scores of end tokens rise by their size times (factor ** steps - 1)."""

    numbers: ClassVar[Mapping[str, float]] = {"regulation_start": float(1 << 30), "regulation_factor": 1.0}

    def __init__(
        self, exponential_decay_length_penalty: tuple[int, float], eos_token_id: Any, input_ids_seq_length: int
    ) -> None:
        start, factor = exponential_decay_length_penalty
        self.regulation_start = start + input_ids_seq_length
        self.regulation_factor = above_zero("exponential_decay_length_penalty[1]", factor, "1.0 has no effect.")
        self.eos_token_id = token_ids("eos_token_id", eos_token_id)

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        start = column(xp, self.regulation_start, "float32", scores)  # may lie between two lengths
        steps = xp.astype(context.lengths[:, None], "float32") - start
        if xp.surely_none(steps > 0):
            return scores
        columns, chosen = listed(scores, self.eos_token_id, steps > 0)
        ends = xp.take_along_axis(scores, xp.where(chosen, columns, 0))
        chosen = chosen & xp.isfinite(ends)
        ends = xp.where(chosen, ends, 0.0)
        steps = xp.maximum(steps, 0.0)
        factor = xp.zeros_like(steps) + column(xp, self.regulation_factor, "float32", scores)
        raised = ends + xp.abs(ends) * (xp.power(factor, steps) - 1)
        return xp.scatter_where(scores, columns, chosen, raised)

    def stack_key(self) -> Hashable:
        return self.eos_token_id

    listed = as_numbers("eos_token_id")


def penalize(xp: Any, scores: Any, tokens: Any, counts: Any, penalty: Any) -> Any:
    """Scores of the tokens ["R L"] that `counts` Bool["R L"], made worse by penalty, a number or ["R 1"]."""
    found = xp.take_along_axis(scores, xp.where(counts, tokens, 0))
    return xp.scatter_where(scores, tokens, counts, worse(xp, found, penalty))


def worse(xp: Any, scores: Any, penalty: Any) -> Any:
    """Positive scores divided by the penalty, others times it."""
    return xp.where(scores < 0, scores * penalty, scores / penalty)


def encoder_rows(tokens: Any, scores: Any) -> Any:
    """Int["R E"], where scores are: an encoder's input on the host, one row a prompt, or such rows as they are."""
    if not isinstance(tokens, np.ndarray):
        return tokens
    return arrays.of(scores).asarray(repeat_rows(tokens, scores.shape[0]), "int32", like=scores)


def encoder_key(tokens: np.ndarray) -> Hashable | None:
    """What says that processors are for the same input, of one prompt; None where it is of several."""
    return tokens.tobytes() if len(tokens) == 1 else None


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
    given = arrays.listed(value)
    if not isinstance(given, (list, tuple)):
        return whole("prompt_ignore_length", given, 0)
    return np.array([[whole("prompt_ignore_length", number, 0)] for number in given], dtype=np.int32)
