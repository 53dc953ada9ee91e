"""Processors as columns do what they do by themselves, whatever stands in the rows beside them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula.arrays import numpy as reference
from fabula.processors import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    ExponentialDecayLengthPenalty,
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
)
from fabula.processors.columns import columns_of, process_of
from fabula.processors.rows import select
from tests.processors.test_rows import ragged

TOKEN = st.integers(0, 8)  # which rows have, some of them often
SEQUENCE = st.lists(TOKEN, min_size=1, max_size=4).map(tuple)
BIAS = st.dictionaries(SEQUENCE, st.sampled_from([0.5, -2.0, 3.25, float("-inf")]), min_size=1, max_size=7)
WORDS = st.lists(SEQUENCE.map(list), min_size=1, max_size=9)
ROW = st.tuples(st.none() | BIAS, st.none() | WORDS, st.booleans())


def chain_of(bias, words, warm):
    made = [] if bias is None else [SequenceBiasLogitsProcessor(bias)]
    made += [TemperatureLogitsWarper(1.5)] if warm else []
    return LogitsProcessorList([*made, *([] if words is None else [NoBadWordsLogitsProcessor(words)])])


def held(xp, chains):
    """The same scores, together and alone."""
    scores, context = ragged(xp, len(chains))
    columns, numbers = columns_of(chains)
    there = [{name: xp.asarray(value, str(value.dtype)) for name, value in own.items()} for own in numbers]
    together = xp.to_host(process_of(columns, there)(scores, context))
    for row, chain in enumerate(chains):
        index = xp.asarray([row], "int32")
        alone = chain.process(xp.take(scores, index), select(context, index))
        np.testing.assert_allclose(together[row], xp.to_host(alone)[0], rtol=1e-6)  # TensorFlow rounds by the place


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=4))
def test_lists_of_rows_side_by_side_are_those_of_each_alone(rows):
    held(reference, [chain_of(*row) for row in rows])


def test_lists_of_rows_side_by_side_are_those_of_each_alone_in_every_framework(xp):
    rows = [({(1,): 1.0, (2, 1): -3.0}, [[3], [4, 5, 6]], True), (None, [[8]], False), (None, None, True)]
    held(xp, [chain_of(*row) for row in rows])


TOKENS = {  # of a number, processors that act on rows of some lengths
    "suppressed": lambda one: SuppressTokensLogitsProcessor([one, 0, 200]),
    "suppressed at first": lambda one: SuppressTokensAtBeginLogitsProcessor([one, one + 1], 3 + one),
    "least length": lambda one: MinLengthLogitsProcessor(5 + one, list(range(one + 1))),
    "least of new ones": lambda one: MinNewTokensLengthLogitsProcessor(2, 3 + one, one),
    "forced end": lambda one: ForcedEOSTokenLogitsProcessor(4 + one, [7, one]),
    "encoder's": lambda one: EncoderRepetitionPenaltyLogitsProcessor(1 + one / 4, [[one, 3, 200, 5][: one + 1]]),
    "encoder's n-grams": lambda one: EncoderNoRepeatNGramLogitsProcessor(2, [[one, 3, 1, one][: one + 2]]),
    "decay": lambda one: ExponentialDecayLengthPenalty((one + 0.5, 1.2), [one, 7, 39], 2),
}


@pytest.mark.parametrize("kind", TOKENS)
def test_tokens_of_rows_side_by_side_are_those_of_each_alone(xp, kind):
    rows = [LogitsProcessorList([TOKENS[kind](one)]) for one in range(6)]
    held(xp, [*rows, LogitsProcessorList(), LogitsProcessorList([TemperatureLogitsWarper(2.0), *rows[1]])])
    assert columns_of(rows[:1])[0] == columns_of(rows[2:4])[0], "other tokens are one form"


def test_n_grams_of_several_sizes_stay_apart(xp):
    rows = [[EncoderNoRepeatNGramLogitsProcessor(size, [[0, 1, 2, 0, 1, 3]])] for size in (1, 2, 3, 2)]
    held(xp, [LogitsProcessorList(row) for row in rows])
    assert len(columns_of(rows)[0]) == 3


def test_an_encoders_input_of_several_prompts_is_no_column():
    two = [[1], [2]]
    for one in (EncoderRepetitionPenaltyLogitsProcessor(2.0, two), EncoderNoRepeatNGramLogitsProcessor(1, two)):
        assert columns_of([[one], [one]]) is None


@pytest.mark.parametrize("words", [[[3]], [[3], [4, 5, 6, 7]], [[token] for token in range(9)]])
def test_sizes_are_powers_of_two(words):
    _, (numbers,) = columns_of([[NoBadWordsLogitsProcessor(words)], []])
    rows, sequences, tokens = numbers["before"].shape
    assert rows == 2 and sequences in (4, 16) and tokens in (1, 4)
    assert numbers["biases"].shape == numbers["last"].shape == (2, sequences)
