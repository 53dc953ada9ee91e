"""FlaxAutoModelForCausalLM: from directories and GGUF files, with typed refusals for what it cannot do."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from fabula import AutoModelForCausalLM, FlaxAutoModelForCausalLM
from fabula.errors import ArgumentError, MissingDependencyError, NotSupportedError

IDS = np.array([[72, 101, 108, 108, 111]])


@pytest.mark.parametrize("absent", ["jax", "flax"])
def test_a_framework_that_is_not_installed_is_named_with_its_command(folder, monkeypatch, absent):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == absent else found(name, *more))
    with pytest.raises(MissingDependencyError, match=r"backend 'jax' needs JAX and Flax: pip install 'fabula\[jax\]'"):
        FlaxAutoModelForCausalLM.from_pretrained(folder)


def test_the_other_door_opens_it_by_its_name(folder):
    jax = pytest.importorskip("jax")
    pytest.importorskip("flax")
    model = AutoModelForCausalLM.from_pretrained(folder, backend="jax", dtype=jax.numpy.bfloat16)
    assert type(model).__name__ == "JaxCausalLM"
    assert str(model.dtype) == "bfloat16"
    assert FlaxAutoModelForCausalLM.from_pretrained(folder, from_pt=True, device_map="cpu").device.platform == "cpu"
    with pytest.raises(ArgumentError, match="`dtype` must be one of"):
        FlaxAutoModelForCausalLM.from_pretrained(folder, dtype="int8")
    with pytest.raises(NotSupportedError, match="`threads`"):
        FlaxAutoModelForCausalLM.from_pretrained(folder, threads=2)


def test_weights_that_are_rounded_on_load_are_those_of_pytorch(folder):
    jax = pytest.importorskip("jax")
    pytest.importorskip("flax")
    torch = pytest.importorskip("torch")
    ours = FlaxAutoModelForCausalLM.from_pretrained(folder, load_in_4bit=True)
    right = AutoModelForCausalLM.from_pretrained(folder, load_in_4bit=True, backend="torch")
    found, expected = ours(jax.numpy.asarray(IDS)).logits, right(torch.tensor(IDS)).logits.detach()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
