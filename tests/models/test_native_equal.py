"""On the native backend in float32 every family's logits are those of transformers, however they are computed."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.models.weights.native import placed_tensors
from fabula.ops.native import NativeModel, native_library
from tests.models.configurations import read_family, read_tensors
from tests.models.steps import CHUNKS, relative_error, stepped_logits

LENGTHS = (45, 1, 17, 70, 33)
BOUND = 1e-5


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(3)
    return [random.integers(0, 89, length).tolist() for length in LENGTHS]


@pytest.fixture(scope="module")
def expected(written, rows):
    return [written.logits(row) for row in rows]


def read_model(directory, **options):
    family = read_family(directory)
    return NativeModel(family, placed_tensors(family, read_tensors(directory)), threads=2, **options)


def test_kernels_give_the_reference_logits_in_any_chunks(written, rows, expected):
    library = native_library()
    if library is None:
        pytest.skip("the kernels are not built")
    model = read_model(written.directory, library=library)
    for chunk in CHUNKS.values():
        for ours, reference in zip(stepped_logits(model, rows, chunk), expected, strict=True):
            assert relative_error(ours, reference) < BOUND


def test_the_twin_gives_the_reference_logits(written, rows, expected):
    model = read_model(written.directory)
    for ours, reference in zip(stepped_logits(model, rows, CHUNKS["seven at a time"]), expected, strict=True):
        assert relative_error(ours, reference) < BOUND
