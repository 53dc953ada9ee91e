"""What a window can see of a row is in as few blocks as shapes alone can promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabula.cache.blocks import BLOCK
from fabula.cache.groups import layer_groups, place_in, reach
from fabula.cache.kinds import CacheKind


@given(st.integers(1, 200), st.integers(1, 80), st.integers(1, 20), st.data())
def test_every_position_that_a_query_sees_is_in_reach(window, count, blocks, data):
    count = min(count, blocks * BLOCK)
    first = np.array(data.draw(st.lists(st.integers(0, blocks * BLOCK - count), min_size=1, max_size=4)), np.int32)
    tables = np.arange(len(first) * blocks, dtype=np.int32).reshape(len(first), blocks)[:, ::-1]
    own, starts = reach(tables, first, count, window)
    seen = window + count - 1
    assert own.shape[1] == min(blocks, -(-(seen - 1) // BLOCK) + 1), "an interval may lie across one block more"
    for row, begin in enumerate(starts.tolist()):
        positions = np.arange(max(0, int(first[row]) - window + 1), int(first[row]) + count)
        assert begin % BLOCK == 0 and begin <= positions[0]
        found = own[row, (positions - begin) // BLOCK]
        assert (found == tables[row, positions // BLOCK]).all()


def test_without_a_window_all_blocks_are_in_reach():
    tables = np.arange(12, dtype=np.int32).reshape(2, 6)
    own, starts = reach(tables, np.array([100, 3], np.int32), 1, None)
    assert own is tables and starts.tolist() == [0, 0]


@pytest.mark.parametrize("bits", [8, 4])
def test_layers_with_equal_heads_and_windows_are_together(bits):
    shapes = [(2, 8, 9), (2, 8, None), (2, 8, 9), (1, 8, None), (2, 8, None)]
    groups = layer_groups(shapes, CacheKind("quantized", bits, 64))
    assert [group.layers for group in groups] == [(0, 2), (1, 4), (3,)]
    assert [place_in(groups, layer) for layer in range(5)] == [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1)]
    assert {group.width for group in groups} == {bits + 4}, "codes of eight features, and one step and base"
    assert {group.width for group in layer_groups(shapes)} == {8}
