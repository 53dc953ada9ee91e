"""Greedy rows of small models of every family are those of transformers."""

from tests.equal.strategies.runs import hold_families

VARIANTS = (
    {},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "eos_token_id": 2, "min_new_tokens": 5},
)


def test_greedy_rows_equal_those_of_transformers(tiny, theirs):
    hold_families(tiny, theirs, VARIANTS)
