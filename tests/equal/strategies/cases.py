"""What is run of the modes that left transformers: settings as JSON can hold them, and where their results are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.equal.strategies.tiny import FAMILIES, prompts

REFERENCES = Path(__file__).parent / "references"
NEW = 20  # tokens of a small model
LONG = 24  # tokens of a real one
REAL = {
    "smollm2": {"repetition_penalty": 1.2},
    "gemma": {},
}
REAL_FILES = {"smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma": "gemma-3-270m-q4_k_m.gguf"}
TEXTS = ("The lighthouse keeper said that", "1, 2, 3, 4, 5,", "def fibonacci(n):\n    ")
WORDS = (" water", " very cold")  # what constrained beams have to say

CONTRASTIVE = (
    {"penalty_alpha": 0.6, "top_k": 4},
    {"penalty_alpha": 0.3, "top_k": 7, "repetition_penalty": 1.3},
    {"penalty_alpha": 0.9, "top_k": 2, "min_new_tokens": 4, "eos_token_id": 2},
)
LAYERS = (
    {"dola_layers": "low", "repetition_penalty": 1.2},
    {"dola_layers": "high", "repetition_penalty": 1.2},
    {"dola_layers": [1, 2, 4, 5], "no_repeat_ngram_size": 2},
    {"dola_layers": [3], "eos_token_id": 2},
)
GROUPS = (
    {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 0.7, "num_return_sequences": 6},
    {"num_beams": 4, "num_beam_groups": 4, "diversity_penalty": 1.5, "num_return_sequences": 4},
    {
        "num_beams": 6,
        "num_beam_groups": 2,
        "diversity_penalty": 0.4,
        "num_return_sequences": 3,
        "length_penalty": 0.5,
        "eos_token_id": 2,
    },
    {
        "num_beams": 4,
        "num_beam_groups": 2,
        "diversity_penalty": 1.0,
        "num_return_sequences": 2,
        "early_stopping": True,
        "eos_token_id": 2,
    },
)
CONSTRAINED = (
    {"num_beams": 4, "num_return_sequences": 2, "force_words_ids": [[11, 12, 13], [21]]},
    {"num_beams": 3, "num_return_sequences": 1, "force_words_ids": [[[31, 32], [33]], [[41, 42, 43]]]},
    {"num_beams": 5, "num_return_sequences": 3, "length_penalty": 0.5, "force_words_ids": [[7, 8]], "eos_token_id": 2},
    {
        "num_beams": 4,
        "num_return_sequences": 2,
        "constraints": [["phrasal", [51, 52]], ["disjunctive", [[14, 15], [14, 16], [17]]]],
        "eos_token_id": 2,
    },
)
SMALL = {"contrastive": CONTRASTIVE, "layers": LAYERS, "groups": GROUPS, "constrained": CONSTRAINED}


def small_cases(family: str) -> Iterator[tuple[str, list[int], dict[str, Any]]]:
    """Mode, prompt and settings of every run of a small model."""
    assert family in FAMILIES
    for mode, variants in SMALL.items():
        for settings in variants:
            for prompt in prompts(family):
                yield mode, prompt, {"max_new_tokens": NEW, "eos_token_id": None, **settings}


def real_cases(name: str, encode: Any) -> Iterator[tuple[str, list[int], dict[str, Any]]]:
    """Mode, prompt and settings of every run of a real model; encode(text, special) gives ids."""
    words = [encode(word, False) for word in WORDS]
    variants = {
        "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
        "layers": {"dola_layers": "high", "repetition_penalty": 1.2},
        "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0, "num_return_sequences": 2},
        "constrained": {"num_beams": 3, "force_words_ids": words},
    }
    for mode, settings in variants.items():
        for text in TEXTS:
            yield mode, encode(text, True), {"max_new_tokens": LONG, "eos_token_id": None, **settings, **REAL[name]}
    low = {"dola_layers": "low", "repetition_penalty": 1.2}
    yield "layers", encode(TEXTS[0], True), {"max_new_tokens": LONG, "eos_token_id": None, **low}


def with_constraints(settings: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with constraints made of their lists; kinds: "phrasal" and "disjunctive" to their classes."""
    made = dict(settings)
    if "constraints" in made:
        made["constraints"] = [kinds[kind](ids) for kind, ids in made["constraints"]]
    return made


def ended(row: list[int], end: int | None) -> list[int]:
    """New tokens up to and with the end token; what follows is padding."""
    return row[: row.index(end) + 1] if end in row else row


def references(name: str) -> dict[str, Any]:
    """What the peer made of a model's cases."""
    return json.loads((REFERENCES / f"{name}.json").read_text(encoding="utf-8"))
