"""The arrays of a burst have room for all that its rows may become."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.cache.blocks import BLOCK, blocks_for
from fabula.decoding.closed.rows import ClosedRow, close
from fabula.decoding.recipe import Limits, Recipe, Record
from fabula.models.bursts.shapes import shaped
from fabula.ops.protocol import Batch
from fabula.processors import LogitsProcessorList

NOTHING = Record()


def row_of(length, room, negative=None, record=NOTHING):
    recipe = Recipe(LogitsProcessorList(), Limits(length + 2000), record=record)
    tokens = np.arange(length, dtype=np.int32)
    return ClosedRow(
        tokens, 3, 0, room, 7, 0, recipe, None if negative is None else np.arange(negative, dtype=np.int32)
    )


def batch_of(first):
    """Rows that compute one position each, over blocks of their own."""
    first = np.array(first, np.int32)
    tables = np.arange(len(first) * 80, dtype=np.int32).reshape(len(first), -1)
    ones = np.arange(len(first), dtype=np.int32)
    return Batch(ones, np.arange(len(first) + 1, dtype=np.int32), first, tables, ones)


@pytest.mark.parametrize("length", [BLOCK * 30 + 1, BLOCK * 30, 5])
def test_the_last_token_has_a_place_too_though_it_is_not_computed(length):
    form, rows = close([row_of(length, BLOCK * 2)])
    burst = shaped(batch_of([length - 1]), form, rows, 101)
    assert burst.closed.tokens.shape[1] == burst.tables.shape[1] * BLOCK >= length + BLOCK * 2


def test_a_negative_prompt_has_its_own_row_and_may_be_the_longer_one():
    form, rows = close([row_of(9, 40, negative=900), row_of(30, 64, negative=2), row_of(2, 3, negative=4)])
    burst = shaped(batch_of([8, 899, 29, 1, 1, 3]), form, rows, 101)
    assert burst.tables.shape[0] == 8 and burst.closed.lengths.shape == (4,) and burst.closed.last.shape == (8,)
    assert burst.tables.shape[1] >= blocks_for(900 + 40)
    assert burst.first.tolist() == burst.closed.position.tolist() == [8, 899, 29, 1, 1, 3, 0, 0]
    slots = burst.slots(np.array([2, 2, 0, 0, 1, 1, 0, 0]), nowhere=-1)
    assert (slots >= 0).sum(1).tolist() == [2, 2, 0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("record", "steps"),
    [
        (Record(log_probabilities=5), 64),
        (Record(scores=True), 32),
        (Record(log_probabilities=5, scores=True, logits=True), 16),
        (NOTHING, 64),
    ],
)
def test_what_a_burst_keeps_stays_within_its_bytes(record, steps):
    form, rows = close([row_of(9, 64, record=record), row_of(9, 64), row_of(9, 7)])
    burst = shaped(batch_of([8, 8, 8]), form, rows, (64 << 20) // (4 * 4 * 32))
    assert burst.steps == steps and burst.closed.room.tolist() == [steps, steps, 7, 0]
    every = close([row_of(9, 64, record=record)] * 200)
    assert shaped(batch_of([8] * 200), *every, 10**6).steps == (1 if record.keeps else 64)
