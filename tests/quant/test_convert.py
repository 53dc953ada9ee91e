"""Weights are brought to another format as they are asked for, each by the rule for its kind."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.quant.convert import ConvertedTensors, QuantizedTensors, converted
from fabula.quant.formats import StoredTensor, dequantize, quantize, stored

GENERATOR = np.random.default_rng(0)
MATRIX = GENERATOR.standard_normal((6, 64)).astype(np.float32)
TENSORS = {
    "matrix": stored("matrix", MATRIX),
    "embedding": stored("embedding", MATRIX),
    "narrow": stored("narrow", MATRIX[:, :40]),
    "vector": stored("vector", MATRIX[0]),
    "half": StoredTensor("half", "F16", (64,), quantize("F16", MATRIX[0])),
    "inputs_first": stored("inputs_first", MATRIX.T.copy()),
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


@pytest.mark.parametrize(("bits", "format"), [(4, "Q4_1"), (8, "Q8_0")])
def test_fewer_bits_reach_matrices_of_whole_blocks(bits, format):
    tensors = QuantizedTensors(TENSORS, bits, keep=frozenset({"embedding"}), inputs_first=frozenset({"inputs_first"}))
    formats = {name: tensors[name].format for name in tensors}
    assert formats == {
        "matrix": format,
        "embedding": "Q8_0",
        "narrow": "F32",
        "vector": "F32",
        "half": "F16",
        "inputs_first": format,
        "packed": "Q8_0",
    }


def test_a_matrix_kept_by_inputs_is_turned_before_it_is_packed():
    tensors = QuantizedTensors(TENSORS, 8, keep=frozenset(), inputs_first=frozenset({"inputs_first"}))
    turned = tensors["inputs_first"]
    assert (turned.shape, turned.transposed) == ((6, 64), True)
    assert np.array_equal(turned.dequantize(), tensors["matrix"].dequantize())
