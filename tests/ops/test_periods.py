"""Layers are taken together as the fewest patterns, and what is left over stands alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula.ops.periods import Period, layer_kinds, periods, shortened
from fabula.ops.specs import AttentionSpec, LayerSpec

GEMMA = "sssssf"


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ("a" * 30, [(0, 1, 30)]),
        ("a", [(0, 1, 1)]),
        ("ab", [(0, 1, 1), (1, 1, 1)]),
        (GEMMA * 3, [(0, 6, 3)]),
        (GEMMA * 4 + "ss", [(0, 6, 4), (24, 1, 2)]),
        ("f" * 20 + "s" * 8, [(0, 1, 20), (20, 1, 8)]),
        ("x" + "ab" * 5, [(0, 1, 1), (1, 2, 5)]),
        ("", []),
    ],
)
def test_the_patterns_are_the_cheapest(kinds, expected):
    assert [(one.start, one.length, one.repeats) for one in periods(kinds)] == expected


@settings(max_examples=100, deadline=None)
@given(st.text("ab", max_size=14), st.integers(0, 14))
def test_patterns_make_up_the_layers_and_may_end_early(kinds, last):
    for found, count in ((periods(kinds), len(kinds)), (shortened(periods(kinds), last), min(last, len(kinds)))):
        assert [layer for one in found for layer in range(one.start, one.end)] == list(range(count))
        for one in found:
            for place in range(one.length):
                assert len({kinds[layer] for layer in one.layers(place)}) == 1


def test_a_pattern_that_ends_early_is_cut_to_whole_repeats():
    assert shortened([Period(0, 6, 3)], 14) == (Period(0, 6, 2), Period(12, 1, 1), Period(13, 1, 1))
    assert shortened([Period(0, 6, 3)], None) == (Period(0, 6, 3),)


def test_a_kind_is_the_spec_without_its_index_and_the_weights_shapes():
    wide, narrow = AttentionSpec(4, 2, 8, 1.0), AttentionSpec(4, 2, 8, 1.0, window=5)
    layers = [LayerSpec(0, wide), LayerSpec(1, wide), LayerSpec(2, narrow), LayerSpec(3, wide)]
    weights = [{"q": (8, 8)}, {"q": (8, 8)}, {"q": (8, 8)}, {"q": (8, 4)}]
    kinds = layer_kinds(layers, weights)
    assert kinds[0] == kinds[1]
    assert len(set(kinds)) == 3
