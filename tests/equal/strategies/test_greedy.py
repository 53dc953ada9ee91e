"""Greedy rows of small models of every family are those of transformers."""

import pytest

from tests.equal.strategies.comparison import Tally
from tests.equal.strategies.runs import BACKENDS, hold_families

VARIANTS = (
    {},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "eos_token_id": 2, "min_new_tokens": 5},
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_greedy_rows_equal_those_of_transformers(backend, tiny, theirs):
    tally = Tally()
    hold_families(tally, backend, tiny, theirs, VARIANTS)
    tally.settle()
