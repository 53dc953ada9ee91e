"""Hamming diversity takes the penalty off what earlier groups chose at the same step, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.errors import ArgumentError
from fabula.processors import HammingDiversityLogitsProcessor, LogitsProcessorList


def test_the_penalty_counts_earlier_groups_beams(xp):
    scores = np.zeros((4, 5), np.float32)  # two prompts, each with the two beams of the second group
    chosen = xp.asarray(np.array([1, 1, 0, 0, 2, 3, 0, 0]), "int32")  # two prompts of four beams
    processor = HammingDiversityLogitsProcessor(0.5, num_beams=4, num_beam_groups=2)
    given = xp.asarray(scores, "float32")
    processed = xp.to_host(processor(None, given, current_tokens=chosen, beam_group_idx=1))
    np.testing.assert_array_equal(processed[:2], [[0, -1.0, 0, 0, 0]] * 2)
    np.testing.assert_array_equal(processed[2:], [[0, 0, -0.5, -0.5, 0]] * 2)
    np.testing.assert_array_equal(xp.to_host(given), scores)


def test_the_first_group_is_free(xp):
    processor = HammingDiversityLogitsProcessor(0.5, num_beams=4, num_beam_groups=2)
    scores = xp.asarray(np.ones((2, 5)), "float32")
    assert processor(None, scores, xp.zeros((4,), "int32"), 0) is scores


def test_a_list_passes_on_what_it_asks_for(xp):
    chain = LogitsProcessorList([HammingDiversityLogitsProcessor(1.0, 2, 2)])
    scores = xp.zeros((1, 3), "float32")
    tokens = xp.asarray(np.array([2, 0]), "int32")
    processed = chain(xp.zeros((1, 1), "int32"), scores, current_tokens=tokens, beam_group_idx=1)
    np.testing.assert_array_equal(xp.to_host(processed), [[0, 0, -1]])


@pytest.mark.parametrize("arguments", [(0.0, 4, 2), (1.0, 1, 2), (1.0, 4, 1), (1.0, 2, 4)])
def test_numbers_out_of_range_are_refused(arguments):
    with pytest.raises(ArgumentError):
        HammingDiversityLogitsProcessor(*arguments)
