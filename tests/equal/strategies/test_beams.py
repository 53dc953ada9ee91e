"""Beams of small models of every family are those of transformers, rows and scores."""

from tests.equal.strategies.runs import hold_families

VARIANTS = (
    {"num_beams": 4, "num_return_sequences": 4},
    {"num_beams": 3, "num_return_sequences": 2, "eos_token_id": 2, "length_penalty": 0.3},
    {"num_beams": 5, "num_return_sequences": 5, "eos_token_id": 2, "early_stopping": True},
    {"num_beams": 4, "num_return_sequences": 1, "eos_token_id": 2, "early_stopping": "never", "length_penalty": 2.0},
    {"num_beams": 2, "num_return_sequences": 2, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
)


def test_beams_equal_those_of_transformers(tiny, theirs):
    hold_families(tiny, theirs, VARIANTS)
