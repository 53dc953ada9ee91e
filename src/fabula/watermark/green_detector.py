"""Finds the green-list watermark: counts green tokens and says how unlikely so many would be without it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula.errors import ArgumentError
from fabula.watermark.green_list import WatermarkLogitsProcessor
from fabula.watermark.token_rows import token_rows

__all__ = ["WatermarkDetector", "WatermarkDetectorOutput", "upper_tail"]


@dataclass
class WatermarkDetectorOutput:
    """What a detector found, a number a text: NumPy arrays ["B"]."""

    num_tokens_scored: np.ndarray | None = None  # tokens that have a context
    num_green_tokens: np.ndarray | None = None  # of those, the green ones
    green_fraction: np.ndarray | None = None  # their share
    z_score: np.ndarray | None = None  # standard deviations above the count expected without a mark
    p_value: np.ndarray | None = None  # the chance of such a z-score or a higher one without a mark
    prediction: np.ndarray | None = None  # whether z_score > z_threshold
    confidence: np.ndarray | None = None  # 1 - p_value


class WatermarkDetector:
    """Tests texts for the mark of `WatermarkLogitsProcessor` (Kirchenbauer et al. 2023, section 4).

    model_config: of the model that made the text (vocab_size, bos_token_id). watermarking_config: that of the
    generation, or its dict. ignore_repeated_ngrams: count each distinct context and token once; texts that repeat
    themselves then do not pass for marked. device, max_cache_size: taken for the sake of code written for
    transformers; nothing depends on them.
    """

    def __init__(
        self,
        model_config: Any,
        device: Any,
        watermarking_config: Any,
        ignore_repeated_ngrams: bool = False,
        max_cache_size: int = 128,
    ) -> None:
        settings = watermarking_config if isinstance(watermarking_config, Mapping) else watermarking_config.to_dict()
        decoder = bool(getattr(model_config, "is_encoder_decoder", False))
        self.bos_token_id = getattr(model_config, "decoder_start_token_id" if decoder else "bos_token_id", None)
        self.ignore_repeated_ngrams = ignore_repeated_ngrams
        self.processor = WatermarkLogitsProcessor(model_config.vocab_size, device, **settings)
        self.greenlist_ratio = self.processor.greenlist_ratio
        self._lists = self.processor.lists(model_config.vocab_size)

    def __call__(
        self, input_ids: Any, z_threshold: float = 3.0, return_dict: bool = False
    ) -> WatermarkDetectorOutput | np.ndarray:
        """Bool["B"]: which texts are marked; or, with return_dict, everything that was found.

        input_ids Int["B L"], best without the prompt; a list may hold texts of different lengths. A leading
        beginning-of-text token is not counted. Raises ArgumentError where only some texts have one, or where a text
        is too short.
        """
        rows = self._without_bos(token_rows("input_ids", input_ids))
        counts = np.array([self._count(row) for row in rows], dtype=np.float64)
        scored, green = counts[:, 0], counts[:, 1]
        ratio = self.greenlist_ratio
        z_score = (green - ratio * scored) / np.sqrt(scored * ratio * (1 - ratio))
        prediction = z_score > z_threshold
        if not return_dict:
            return prediction
        p_value = upper_tail(z_score)
        return WatermarkDetectorOutput(scored, green, green / scored, z_score, p_value, prediction, 1 - p_value)

    def _without_bos(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        begins = [len(row) > 0 and row[0] == self.bos_token_id for row in rows]
        if any(begins) != all(begins):
            raise ArgumentError(
                "`input_ids` must begin with the same kind of token in every text, got the beginning-of-text token in "
                "some only. Prepare all of them in the same way."
            )
        rows = [row[1:] if begins[0] else row for row in rows]
        width = self.processor.context_width
        if min(map(len, rows)) <= width:
            raise ArgumentError(
                f"`input_ids` must have at least `1` token to score after the first min_prefix_len={width} tokens "
                "required by the seeding scheme. Give longer texts."
            )
        return rows

    def _count(self, row: np.ndarray) -> tuple[int, int]:
        """How many n-grams of a text are scored, and how many of them end in a green token."""
        selfhash = self.processor.seeding_scheme == "selfhash"
        ngrams = np.lib.stride_tricks.sliding_window_view(row, self.processor.context_width + 1 - selfhash)
        distinct, counts = np.unique(ngrams, axis=0, return_counts=True)
        if selfhash:
            green = self._lists.in_their_own(distinct[:, :-1], distinct[:, -1:])[:, 0]
        else:
            green = self._follow_their_lists(distinct[:, -2], distinct[:, -1])
        if self.ignore_repeated_ngrams:
            return len(distinct), int(green.sum())
        return len(ngrams), int(counts[green].sum())

    def _follow_their_lists(self, before: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Bool["N"]: tokens that are green after the ones before them, each list being made once."""
        green = np.zeros(len(tokens), dtype=bool)
        inside = (tokens >= 0) & (tokens < self._lists.vocabulary)
        for token in np.unique(before[inside]):
            places = np.flatnonzero(inside & (before == token))
            green[places] = self._lists.greens_after(int(token))[tokens[places]]
        return green


def upper_tail(z: np.ndarray) -> np.ndarray:
    """The chance that a standard normal variable is above z."""
    return np.array([0.5 * math.erfc(value / math.sqrt(2)) for value in z])
