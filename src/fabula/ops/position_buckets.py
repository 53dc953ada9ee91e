"""Which bucket the distance between a query and a key falls into."""

from __future__ import annotations

import math

import numpy as np

from fabula.ops.specs import BiasSpec


def bucket_table(spec: BiasSpec, causal: bool) -> np.ndarray:
    """Int["2 * max_distance + 1"]: the bucket of each distance, key less query, from -max_distance to max_distance.

    Distances beyond either end share its bucket. Raffel et al. 2020, section 2.1; in float32, as checkpoints expect.
    """
    one_way = spec.buckets if causal else spec.buckets // 2
    before = _buckets_of(np.arange(spec.max_distance, -1, -1), one_way, spec.max_distance)
    after = np.zeros(spec.max_distance, np.int64) if causal else one_way + before[-2::-1]
    return np.concatenate([before, after])


def _buckets_of(distances: np.ndarray, buckets: int, max_distance: int) -> np.ndarray:
    """Buckets of distances >= 0 in one direction."""
    exact = buckets // 2
    far = np.maximum(distances, exact).astype(np.float32)
    share = np.log(far / np.float32(exact)) / np.float32(math.log(max_distance / exact))
    wide = exact + (share * np.float32(buckets - exact)).astype(np.int64)
    return np.where(distances < exact, distances, np.minimum(wide, buckets - 1))
