"""Weights are brought to another format as they are asked for, each by the rule for its kind."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.errors import ArgumentError
from fabula.quant.convert import FLOATS, ConvertedTensors, check_packable, converted
from fabula.quant.formats import StoredTensor, dequantize, quantize, stored

GENERATOR = np.random.default_rng(0)
MATRIX = GENERATOR.standard_normal((6, 64)).astype(np.float32)
TENSORS = {
    "matrix": stored("matrix", MATRIX),
    "vector": stored("vector", MATRIX[0]),
    "half": StoredTensor("half", "F16", (64,), quantize("F16", MATRIX[0])),
    "packed": StoredTensor("packed", "Q8_0", (6, 64), quantize("Q8_0", MATRIX)),
}


@pytest.mark.parametrize("format", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_a_converted_weight_holds_what_quantizing_gives(format):
    tensor = converted(TENSORS["matrix"], format)
    assert (tensor.name, tensor.format, tensor.shape) == ("matrix", format, (6, 64))
    assert np.array_equal(tensor.dequantize(), dequantize(format, quantize(format, MATRIX), (6, 64)))
    assert not tensor.data.flags.writeable


def test_a_weight_in_the_format_already_is_itself():
    assert converted(TENSORS["packed"], "Q8_0") is TENSORS["packed"]


def test_a_type_reaches_every_matrix_and_leaves_float32_vectors():
    tensors = ConvertedTensors(TENSORS, "BF16")
    assert {name: tensors[name].format for name in ("matrix", "packed", "half")} == {
        "matrix": "BF16",
        "packed": "BF16",
        "half": "BF16",
    }
    assert tensors["vector"].format == "F32"
    assert list(tensors) == list(TENSORS)


def test_formats_that_are_kept_stay():
    tensors = ConvertedTensors(TENSORS, "BF16", kept=FLOATS)
    assert {name: tensors[name].format for name in ("matrix", "packed", "half")} == {
        "matrix": "F32",
        "packed": "BF16",
        "half": "F16",
    }


@pytest.mark.parametrize("format", list(FLOATS))
@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan, 1e6, -1e6])
def test_numbers_that_no_scale_reaches_are_refused_by_name(format, wrong):
    weights = MATRIX.copy()
    check_packable(StoredTensor("w", format, weights.shape, quantize(format, weights)))
    weights[0, :2] = 65280, -65280
    check_packable(StoredTensor("w", format, weights.shape, quantize(format, weights)))
    weights[3, 5] = wrong
    with pytest.raises(ArgumentError, match="w must be finite and within 65504 to be quantized, got"):
        check_packable(StoredTensor("w", format, weights.shape, quantize(format, weights)))


def test_a_weight_without_numbers_can_be_packed():
    check_packable(stored("empty", np.empty((0, 32), np.float32)))
