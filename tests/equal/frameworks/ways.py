"""Every way to decode, as calls of generate() that all frameworks must answer alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from fabula import SynthIDTextWatermarkingConfig, WatermarkingConfig
from tests.equal.strategies.tiny import prompts

SEEDED = {"do_sample": True, "seed": 5}
SHOWN = {"return_dict_in_generate": True}
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"do_sample": True, "seed": [5, 6, 7], "temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.01},
    "drawn sequences": {**SEEDED, "num_return_sequences": 2},
    "penalties": {"repetition_penalty": 1.3, "encoder_repetition_penalty": 1.1, "no_repeat_ngram_size": 2},
    "words": {"bad_words_ids": [[5], [7, 8]], "sequence_bias": {(9,): 2.0, (3, 4): -1.0}, "suppress_tokens": [11]},
    "ends": {"eos_token_id": [2, 9, 17], "min_new_tokens": 3, "exponential_decay_length_penalty": (2, 1.2)},
    "forced": {"forced_bos_token_id": 5, "forced_eos_token_id": 6, "begin_suppress_tokens": [8]},
    "cut tails": {**SEEDED, "typical_p": 0.8, "eta_cutoff": 0.01, "epsilon_cutoff": 0.001, "top_h": 0.9},
    "beams": {"num_beams": 4, "num_return_sequences": 2, "eos_token_id": 2, "length_penalty": 0.5},
    "drawn beams": {"num_beams": 3, **SEEDED},
    "groups of beams": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.7, "num_return_sequences": 4},
    "constrained beams": {"num_beams": 3, "force_words_ids": [[11, 12], [21]]},
    "contrastive search": {"penalty_alpha": 0.6, "top_k": 4},
    "contrast of layers": {"dola_layers": "high"},
    "contrast of some layers": {"dola_layers": [1, 3], "repetition_penalty": 1.2},
    "guidance": {"guidance_scale": 1.5},
    "drafts from the prompt": {"prompt_lookup_num_tokens": 3},
    "drafts of the first layers": {"assistant_early_exit": 2},
    "a green list": {**SEEDED, "watermarking_config": WatermarkingConfig(greenlist_ratio=0.5, bias=2.0)},
    "a tournament": {**SEEDED, "watermarking_config": SynthIDTextWatermarkingConfig(keys=[1, 2, 3, 4], ngram_len=3)},
    "scores": {**SHOWN, "output_scores": True, "output_logits": True, **SEEDED},
    "states": {**SHOWN, "output_hidden_states": True, "output_attentions": True},
    "states of beams": {**SHOWN, "num_beams": 2, "output_scores": True, "output_hidden_states": True},
    "log-probabilities": {
        **SHOWN,
        "output_log_probabilities": True,
        "top_log_probabilities": 3,
        "output_prompt_log_probabilities": True,
    },
}


def call_of(way: str) -> dict[str, Any]:
    """The settings of a way."""
    return {"max_new_tokens": 8, "eos_token_id": None, "pad_token_id": 0, **WAYS[way]}


def inputs_of(family: str, side: str = "left") -> tuple[np.ndarray, np.ndarray]:
    """Three prompts as ids Int32["3 L"] and their mask, padded on a side."""
    rows = prompts(family)
    width = max(map(len, rows))
    ids, mask = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), np.int32)
    for row, tokens in enumerate(rows):
        span = slice(width - len(tokens), width) if side == "left" else slice(0, len(tokens))
        ids[row, span], mask[row, span] = tokens, 1
    return ids, mask


def assert_same(ours: Any, right: Any) -> None:
    """Equal whole numbers, and floats near each other by the size of the largest, in any nesting."""
    if right is None or isinstance(right, str):
        assert ours == right
    elif isinstance(right, (tuple, list)):
        assert len(ours) == len(right)
        for pair in zip(ours, right, strict=True):
            assert_same(*pair)
    else:
        ours, right = np.asarray(ours), np.asarray(right)
        assert ours.shape == right.shape
        if right.dtype.kind == "f":
            finite = np.isfinite(right)
            size = np.abs(right[finite]).max(initial=1e-6)
            np.testing.assert_allclose(ours / size, right / size, rtol=1e-4, atol=1e-4)
        else:
            np.testing.assert_array_equal(ours, right)
