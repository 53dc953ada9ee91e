"""Weights that are packed on load: the kernels, what is saved of them, and PyTorch's parameters agree."""

from __future__ import annotations

import numpy as np
import pytest

from fabula import AutoModelForCausalLM
from fabula.errors import ArgumentError
from fabula.hub.files import read_weights
from fabula.kernels.plain import rounded_to
from fabula.kernels.program import Layout
from fabula.models.families.table import family_for
from fabula.models.native import NativeCausalLM
from fabula.models.weights.rounding import RoundedTensors
from fabula.quant.formats import stored
from fabula.quant.safetensors import save_safetensors
from fabula.testing.tiny_model import write_tiny_model

IDS = [[72, 101, 108, 108, 111, 32, 119, 111, 114]]


def logits(model):
    given = model(np.array(IDS)).logits
    return np.asarray(given.detach() if hasattr(given, "detach") else given, np.float64)


def distance(one, other):
    return np.abs(one - other).max() / np.abs(other).max()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Rows of 48 and 104 numbers: neither is a whole number of groups."""
    sizes = {"hidden_size": 48, "intermediate_size": 104, "num_attention_heads": 4, "num_key_value_heads": 2}
    folder = tmp_path_factory.mktemp("odd")
    return write_tiny_model(folder, **sizes)


def rounded(folder, precision):
    tensors = read_weights(folder)
    family = family_for(AutoModelForCausalLM.from_pretrained(folder).config)
    return tensors, RoundedTensors(family, tensors, precision)


@pytest.mark.parametrize(("bits", "layout"), [(4, Layout.CODE4_MIN), (8, Layout.CODE8)])
def test_layers_take_the_bits_the_head_takes_8_and_what_is_looked_up_stays(folder, bits, layout):
    tensors, packed = rounded(folder, f"{bits}bit")
    assert list(packed) == list(tensors)
    for name in tensors:
        floats = tensors[name].dequantize()
        kind = Layout.CODE8 if name == "lm_head.weight" else layout
        factor = floats.ndim == 2 and "embed_tokens" not in name
        expected = rounded_to(kind, floats) if factor else floats
        assert np.array_equal(packed[name].dequantize(), expected), name
        assert factor == (not np.array_equal(expected, floats)), name


@pytest.mark.parametrize("options", [{"load_in_4bit": True}, {"load_in_8bit": True}])
def test_both_backends_and_what_is_saved_hold_the_same_numbers(folder, tmp_path, options):
    pytest.importorskip("torch")
    native = AutoModelForCausalLM.from_pretrained(folder, **options)
    torch = AutoModelForCausalLM.from_pretrained(folder, backend="torch", **options)
    native.save_pretrained(tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    exact = logits(AutoModelForCausalLM.from_pretrained(folder))
    assert distance(logits(torch), logits(saved)) < 1e-5
    assert distance(logits(native), logits(saved)) < 0.03  # activations are rounded to 8 bits
    assert distance(logits(saved), exact) > 1e-4


def test_a_type_beside_the_bits_is_that_of_what_stays(folder):
    plain, typed = (
        AutoModelForCausalLM.from_pretrained(folder, load_in_4bit=True, **options)
        for options in ({}, {"dtype": "bfloat16"})
    )
    assert np.array_equal(logits(plain), logits(typed))


def test_weights_that_are_no_numbers_are_refused_by_name(folder, tmp_path):
    tensors = dict(read_weights(folder))
    name = "model.layers.1.mlp.down_proj.weight"
    weights = tensors[name].dequantize().copy()
    weights[2, 7] = np.nan
    tensors[name] = stored(name, weights)
    save_safetensors(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    for backend in ("native", "torch"):
        with pytest.raises(ArgumentError, match=rf"{name} must be finite and within 65504 .*, got nan"):
            AutoModelForCausalLM.from_pretrained(tmp_path, load_in_4bit=True, backend=backend)
    AutoModelForCausalLM.from_pretrained(tmp_path)


def test_packing_tells_of_every_byte(folder):
    """What is packed, and nothing else: the bytes of the layers' matrices and the head."""
    told = []
    model = AutoModelForCausalLM.from_pretrained(folder)
    tensors = read_weights(folder)
    NativeCausalLM(model.family, tensors, precision="4bit", loaded=lambda done, total: told.append((done, total)))
    matrices = sum(tensors[n].data.nbytes for n in tensors if len(tensors[n].shape) == 2 and "embed" not in n)
    assert told[-1] == (matrices, matrices)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
