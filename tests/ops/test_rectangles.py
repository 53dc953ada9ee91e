"""Ragged batches as rectangles of few shapes: every position has its place, and padding has none in the cache."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula.cache.blocks import BLOCK, blocks_for
from fabula.ops.protocol import Batch
from fabula.ops.rectangles import LEAST_BLOCKS, LEAST_WIDTH, bucket, by_row, in_rectangle, rectangles, scored_order

NOWHERE = 1 << 20
ROWS = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 70)), min_size=1, max_size=9)


def make_batch(rows):
    """Rows of (positions in the cache, new positions), every third new position scored."""
    counts = np.array([count for _, count in rows], np.int32)
    total = int(counts.sum())
    width = max(1, *(blocks_for(first + count) for first, count in rows))
    return Batch(
        tokens=np.arange(1000, 1000 + total, dtype=np.int32),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        first=np.array([first for first, _ in rows], np.int32),
        tables=(np.arange(len(rows) * width, dtype=np.int32) + 1).reshape(len(rows), width),
        scored=np.arange(0, total, 3, dtype=np.int32),
    )


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_every_new_position_has_one_place_with_its_token_position_and_slot(rows):
    batch = make_batch(rows)
    seen = []
    for part in rectangles(batch, NOWHERE):
        real = part.slots != NOWHERE
        assert real.sum() == part.counts.sum()
        assert not part.tokens[~real].any()
        seen += part.index[real].tolist()
        assert np.array_equal(in_rectangle(part, batch.tokens)[real], part.tokens[real])
        for place, row in enumerate(part.rows):
            first, count = rows[row]
            assert part.positions[place, :count].tolist() == list(range(first, first + count))
            assert (part.positions[place, count:] == first + count - 1).all()
            assert part.lengths[place] == first + count
            expected = [batch.tables[row, p // BLOCK] * BLOCK + p % BLOCK for p in range(first, first + count)]
            assert part.slots[place, :count].tolist() == expected
        assert not real[len(part.rows) :].any()
        assert not part.lengths[len(part.rows) :].any()
    assert sorted(seen) == list(range(len(batch.tokens)))


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_shapes_are_buckets(rows):
    for part in rectangles(make_batch(rows), NOWHERE):
        height, width, blocks, scored = part.shape
        assert height == bucket(len(part.rows))
        assert width == (1 if part.counts.max() == 1 else bucket(int(part.counts.max()), LEAST_WIDTH))
        assert blocks == bucket(blocks_for(int(part.lengths.max())), LEAST_BLOCKS)
        assert scored in (height, height * width)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_what_is_scored_comes_back_in_the_batchs_order(rows):
    batch = make_batch(rows)
    parts = rectangles(batch, NOWHERE)
    pieces = [part.tokens.reshape(-1)[part.scored][: len(part.outputs)] for part in parts]
    found = np.concatenate([*pieces, np.zeros(0, np.int32)])
    order = scored_order(parts)
    assert np.array_equal(found if order is None else found[order], batch.tokens[batch.scored])


def test_rows_that_decode_are_apart_from_prompts_and_prompts_of_like_lengths_together():
    parts = rectangles(make_batch([(5, 1), (0, 60), (9, 1), (0, 20), (0, 3), (0, 0), (4, 2)]), NOWHERE)
    assert [part.rows.tolist() for part in parts] == [[0, 2], [1, 3], [4, 6]]
    assert [part.shape[:2] for part in parts] == [(2, 1), (2, 64), (2, 16)]


def test_rows_that_decode_alone_are_in_order():
    batch = replace(make_batch([(5, 1), (40, 1), (2, 1)]), scored=np.arange(3, dtype=np.int32))
    parts = rectangles(batch, NOWHERE)
    assert scored_order(parts) is None
    assert parts[0].shape == (4, 1, LEAST_BLOCKS, 4)


def test_weights_are_found_by_row():
    parts = rectangles(make_batch([(5, 1), (0, 3), (9, 1)]), NOWHERE)
    values = [np.zeros((*part.tokens.shape[:1], 2, part.tokens.shape[1], 128)) for part in parts]
    for part, value in zip(parts, values, strict=True):
        value[: len(part.rows)] += part.rows[:, None, None, None]
    rows = by_row(parts, values)
    assert [row.shape for row in rows] == [(2, 1, 6), (2, 3, 3), (2, 1, 10)]
    assert [row.max() for row in rows] == [0, 1, 2]


@pytest.mark.parametrize(("count", "least", "expected"), [(0, 1, 1), (1, 1, 1), (3, 1, 4), (64, 1, 64), (5, 16, 16)])
def test_a_bucket_is_the_next_power_of_two(count, least, expected):
    assert bucket(count, least) == expected
