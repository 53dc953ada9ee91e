"""Finds SynthID's mark: by a trained detector's posterior, or, without any training, by a weighted mean of g-values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula import arrays
from fabula.errors import ArgumentError
from fabula.watermark.green_detector import upper_tail
from fabula.watermark.synthid import SynthIDTextWatermarkLogitsProcessor

__all__ = ["SynthIDTextScoreDetector", "SynthIDTextScoreDetectorOutput", "SynthIDTextWatermarkDetector"]


class SynthIDTextWatermarkDetector:
    """Asks a detector model, such as `BayesianDetectorModel`, about the g-values of texts."""

    def __init__(
        self, detector_module: Any, logits_processor: SynthIDTextWatermarkLogitsProcessor, tokenizer: Any
    ) -> None:
        self.detector_module = detector_module
        self.logits_processor = logits_processor
        self.tokenizer = tokenizer

    def __call__(self, tokenized_outputs: Any) -> Any:
        """What the module says of texts Int["B L"]: (posterior Float["B"],).

        The first `ngram_len - 1` tokens, repeated contexts and what follows an end token do not count.
        """
        return self.detector_module(*evidence(self.logits_processor, self.tokenizer.eos_token_id, tokenized_outputs))


@dataclass(frozen=True)
class SynthIDTextScoreDetectorOutput:
    """What the score says, a number a text: NumPy arrays ["B"]."""

    num_tokens_scored: np.ndarray  # tokens that count
    score: np.ndarray  # their mean g-value, the depths weighted; near 0.5 without a mark
    z_score: np.ndarray  # standard deviations above what is expected without a mark
    p_value: np.ndarray  # the chance of such a z-score or a higher one without a mark
    prediction: np.ndarray  # whether z_score > z_threshold
    confidence: np.ndarray  # 1 - p_value


class SynthIDTextScoreDetector:
    """The weighted-mean score of Dathathri et al. 2024, which needs no training.

    Without a mark the g-values are coin flips, so that the score's distribution is known. weights: one a depth; None:
    falling from 10 to 1, as later depths of a tournament tell less. tokenizer: its end token ends a text; None: none.
    """

    def __init__(
        self,
        logits_processor: SynthIDTextWatermarkLogitsProcessor,
        tokenizer: Any = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        depth = len(logits_processor.keys)
        chosen = np.linspace(10, 1, depth) if weights is None else np.asarray(weights, dtype=np.float64)
        if chosen.shape != (depth,) or not (chosen >= 0).all() or not chosen.any():
            raise ArgumentError(f"`weights` must be {depth} numbers of at least 0, got {weights!r}. Give one a key.")
        self.logits_processor = logits_processor
        self.eos_token_id = getattr(tokenizer, "eos_token_id", None)
        self.weights = chosen / chosen.sum()

    def __call__(
        self, tokenized_outputs: Any, z_threshold: float = 3.0, return_dict: bool = False
    ) -> SynthIDTextScoreDetectorOutput | np.ndarray:
        """Bool["B"]: which of the texts Int["B L"] are marked; or, with return_dict, everything that was found.

        Raises ArgumentError where a text has no token that counts.
        """
        g_values, mask = evidence(self.logits_processor, self.eos_token_id, tokenized_outputs)
        xp = arrays.of(g_values)
        mask, g_values = xp.to_host(mask), xp.to_host(g_values)
        scored = mask.sum(axis=1).astype(np.float64)
        if not scored.all():
            least = self.logits_processor.ngram_len
            raise ArgumentError(f"`tokenized_outputs` must have {least} tokens or more before an end token. Add some.")
        score = ((g_values @ self.weights) * mask).sum(axis=1) / scored
        chance = self.logits_processor.sampling_table.mean()
        deviation = np.sqrt(chance * (1 - chance) * np.sum(self.weights**2) / scored)
        z_score = (score - chance) / deviation
        prediction = z_score > z_threshold
        if not return_dict:
            return prediction
        p_value = upper_tail(z_score)
        return SynthIDTextScoreDetectorOutput(scored, score, z_score, p_value, prediction, 1 - p_value)


def evidence(
    processor: SynthIDTextWatermarkLogitsProcessor, eos_token_id: int | Sequence[int] | None, tokens: Any
) -> tuple[Any, Any]:
    """Int["B N D"], Bool["B N"]: the g-values of texts Int["B L"], and which of the N = L - ngram_len + 1 count."""
    tokens = tokens if hasattr(tokens, "ndim") else np.asarray(tokens)
    if tokens.ndim != 2 or tokens.shape[1] < processor.ngram_len:
        raise ArgumentError(
            f"`tokenized_outputs` must be texts of at least {processor.ngram_len} tokens in an array of shape "
            f"(batch_size, length), got shape {tuple(tokens.shape)}. Give longer texts."
        )
    mask = processor.compute_context_repetition_mask(tokens)
    if eos_token_id is not None:
        mask = mask & processor.compute_eos_token_mask(tokens, eos_token_id)[:, processor.ngram_len - 1 :]
    return processor.compute_g_values(tokens), mask
