"""PyTorch rounds weights to the numbers that NumPy rounds them to, bit for bit, and loads them without NumPy's help."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays

torch = pytest.importorskip("torch")

from fabula import AutoModelForCausalLM  # noqa: E402
from fabula.hub.files import read_weights  # noqa: E402
from fabula.kernels.plain import rounded_to  # noqa: E402
from fabula.kernels.program import Layout  # noqa: E402
from fabula.models.families.table import family_for  # noqa: E402
from fabula.models.weights import rounding  # noqa: E402  # needs torch
from fabula.models.weights import torch as torch_weights  # noqa: E402  # needs torch
from fabula.models.weights.rounding import RoundedTensors, Rounding  # noqa: E402
from fabula.models.weights.torch import to_tensor  # noqa: E402  # needs torch
from fabula.models.weights.torch_rounding import rounded_rows  # noqa: E402  # needs torch
from fabula.quant.convert import converted  # noqa: E402
from fabula.quant.formats import StoredTensor, stored  # noqa: E402
from fabula.testing.tiny_model import write_tiny_model  # noqa: E402

LAYOUTS = [Layout.CODE4_MIN, Layout.CODE8]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
]
NUMBERS = some.floats(-65504, 65504, width=32)


def same_bits(ours, expected):
    return np.array_equal(ours.cpu().numpy().view(np.uint32), np.ascontiguousarray(expected).view(np.uint32))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1e-9, 1e-5, 0.02, 1.0, 3000.0])
def test_random_weights_get_the_same_bits(layout, size, device):
    weights = (np.random.default_rng(0).standard_normal((300, 104)) * size).astype(np.float32)
    weights[3], weights[4, :32] = 0, 7.5
    assert same_bits(rounded_rows(layout, torch.from_numpy(weights).to(device)), rounded_to(layout, weights))


@pytest.mark.parametrize("layout", LAYOUTS)
@given(weights=arrays.arrays(np.float32, some.tuples(some.integers(1, 3), some.integers(1, 70)), elements=NUMBERS))
def test_any_weights_get_the_same_bits(layout, weights):
    assert same_bits(rounded_rows(layout, torch.from_numpy(weights)), rounded_to(layout, weights))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("turned", [False, True])
def test_a_stored_weight_is_rounded_in_pieces(monkeypatch, layout, turned, kind, device):
    monkeypatch.setattr(torch_weights, "CHUNK", 200)
    weights = np.random.default_rng(1).standard_normal((45, 70)).astype(np.float32)
    tensor = converted(stored("w", weights), kind)
    plain = rounding._rounded(tensor, Rounding(layout, turned)).dequantize()
    assert same_bits(to_tensor(tensor, torch.float32, device, Rounding(layout, turned)), plain)
    other = StoredTensor("w", kind, tensor.shape, tensor.data, transposed=True)
    assert same_bits(to_tensor(other, torch.float32, device, Rounding(layout, turned)), plain.T)
    half = to_tensor(tensor, torch.bfloat16, device, Rounding(layout, turned))
    assert torch.equal(half.cpu(), torch.from_numpy(np.array(plain)).bfloat16())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
def test_weights_that_are_not_rounded_come_over_as_they_are(monkeypatch, kind, device):
    monkeypatch.setattr(torch_weights, "CHUNK", 200)
    tensor = converted(stored("w", np.random.default_rng(1).standard_normal((9, 64)).astype(np.float32)), kind)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        expected = torch.from_numpy(np.array(tensor.dequantize())).to(dtype)
        assert torch.equal(to_tensor(tensor, dtype, device).cpu(), expected)
    vector = converted(stored("v", np.arange(500, dtype=np.float32)), "F32")
    assert to_tensor(vector, torch.float32, device).tolist() == list(range(500))


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_model_is_loaded_without_numpy_rounding_anything(tmp_path, monkeypatch, model_type, bits):
    config = {"model_type": model_type, "activation_function": "gelu_new", "hidden_size": 48}
    folder = write_tiny_model(tmp_path, num_key_value_heads=4, **config)
    family = family_for(AutoModelForCausalLM.from_pretrained(folder).config)
    expected = RoundedTensors(family, read_weights(folder), f"{bits}bit")
    expected = {name: expected[name].dequantize() for name in expected}
    monkeypatch.setattr(rounding, "rounded_to", None)
    model = AutoModelForCausalLM.from_pretrained(folder, backend="torch", **{f"load_in_{bits}bit": True})
    found = model.state_dict()
    for name, weights in expected.items():
        assert same_bits(found[name], weights), name
