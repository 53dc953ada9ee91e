"""Distances fall into the buckets that checkpoints were trained with."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.ops.position_buckets import bucket_table
from fabula.ops.specs import BiasSpec


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "spec", [BiasSpec(32, 128), BiasSpec(4, 3), BiasSpec(7, 11), BiasSpec(64, 256), BiasSpec(8, 999)]
)
def test_buckets_are_those_of_transformers(spec, causal):
    torch = pytest.importorskip("torch")
    attention = pytest.importorskip("transformers.models.t5.modeling_t5").T5Attention
    beyond = 2 * spec.max_distance
    expected = attention._relative_position_bucket(
        torch.arange(-beyond, beyond + 1), not causal, spec.buckets, spec.max_distance
    ).numpy()
    distances = np.arange(-beyond, beyond + 1).clip(-spec.max_distance, spec.max_distance)
    assert np.array_equal(bucket_table(spec, causal)[distances + spec.max_distance], expected)


def test_a_causal_layer_has_all_buckets_for_what_was_before():
    table = bucket_table(BiasSpec(8, 16), causal=True)
    assert table[12:17].tolist() == [4, 3, 2, 1, 0]
    assert set(table[:17].tolist()) == set(range(8))
    assert not table[17:].any()


def test_a_layer_that_looks_both_ways_splits_them():
    table = bucket_table(BiasSpec(8, 16), causal=False)
    assert table[16] == 0
    assert set(table[:16].tolist()) == {1, 2, 3}
    assert set(table[17:].tolist()) == {5, 6, 7}
    assert np.array_equal(table[17:], table[15::-1] + 4)
