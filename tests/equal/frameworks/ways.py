"""Every way to decode, as calls of generate() that all frameworks must answer alike."""

from __future__ import annotations

from typing import Any

from fabula import SynthIDTextWatermarkingConfig, WatermarkingConfig
from tests.equal.frameworks.doors import Ids
from tests.equal.strategies.tiny import prompts
from tests.padding import padded

SEEDED = {"do_sample": True, "seed": 5}
# What is stored is rounded: a number on a border falls either way, and scores differ then by more than others do. Their
# texts are compared.
CODED: dict[str, dict[str, Any]] = {
    "codes of 8 bits": {"cache_implementation": "quantized", "cache_config": {"nbits": 8}, **SEEDED, "top_k": 20},
    "codes of 4 bits": {"cache_implementation": "quantized", "cache_config": {"nbits": 4}},
}
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
    "contrast of layers": {"dola_layers": "high", "repetition_penalty": 1.2},
    "contrast of some layers": {"dola_layers": [1, 3]},
    "guidance": {"guidance_scale": 1.5},
    "guided beams": {"guidance_scale": 1.5, "num_beams": 3},
    "guided contrastive search": {"guidance_scale": 1.5, "penalty_alpha": 0.6, "top_k": 4},
    "drafts from the prompt": {"prompt_lookup_num_tokens": 3},
    "drafts of the first layers": {"assistant_early_exit": 2},
    "a green list": {**SEEDED, "watermarking_config": WatermarkingConfig(greenlist_ratio=0.5, bias=2.0)},
    "a tournament": {**SEEDED, "watermarking_config": SynthIDTextWatermarkingConfig(keys=[1, 2, 3, 4], ngram_len=3)},
    "logits": {"output_logits": True, **SEEDED},
    "states": {"output_hidden_states": True, "output_attentions": True},
    "states of beams": {"num_beams": 2, "output_hidden_states": True, "output_attentions": True},
    "log-probabilities": {
        "output_log_probabilities": True,
        "top_log_probabilities": 3,
        "output_prompt_log_probabilities": True,
    },
    **CODED,
}


WHOLE = "gemma3"  # the family that all of them are asked of: its layers have a pattern
# Asked of the others: what its layers have a part in, and a few of the others.
CROSS_SECTION = ("greedy", "drawn", "penalties", "words", "cut tails", "a green list", "beams", "contrast of layers")
# Asked of families with an encoder: all that knows of what their rows read.
OF_ENCODERS = (
    "greedy",
    "drawn",
    "drawn sequences",
    "penalties",
    "ends",
    "forced",
    "beams",
    "drawn beams",
    "groups of beams",
    "constrained beams",
    "contrastive search",
    "a green list",
    "logits",
    "states",
    "states of beams",
)
# These rows need nothing but numbers to go on: a backend may choose all their tokens in one call.
CLOSED = ("drawn", "greedy")


def call_of(way: str) -> dict[str, Any]:
    """The settings of a way."""
    return {"max_new_tokens": 8, "eos_token_id": None, "pad_token_id": 0, **WAYS[way]}


def inputs_of(family: str, way: str) -> Ids:
    """Three prompts and their mask, padded on the left; one where drafts would make a shape of each step."""
    rows = prompts(family, 4)[3 if way.startswith("drafts") else 1 :]
    return padded(rows)
