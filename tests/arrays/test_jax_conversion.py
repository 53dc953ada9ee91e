"""Arrays of the host become JAX's without a program for each of their shapes."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from fabula.arrays import jax as functions  # noqa: E402


@pytest.mark.parametrize("dtype", ["int64", "int32", "float32", "bool"])
def test_another_shape_compiles_nothing(dtype):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    for length in (11, 13):
        made = functions.asarray(np.ones((3, length), np.int64), dtype)
        assert made.shape == (3, length) and made.dtype == {"int64": "int32"}.get(dtype, dtype)
    assert not [event for event in compiled if "backend_compile" in event]
