"""A model that one framework has saved is the same model in all others; 16-bit weights work in JAX."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")
torch = pytest.importorskip("torch")

from fabula import AutoConfig, AutoModelForCausalLM, FlaxAutoModelForCausalLM  # noqa: E402

IDS = np.array([[5, 6, 7, 8, 9, 10]])


def logits(model):
    found = model(torch.tensor(IDS) if isinstance(model, torch.nn.Module) else jax.numpy.asarray(IDS)).logits
    return np.asarray(found.detach() if isinstance(found, torch.Tensor) else found, np.float32)


@pytest.fixture(scope="module", params=["gpt2", "llama-tied", "gemma3-scaled"])
def written(request, writing):
    return writing(request.param).directory


def test_a_saved_model_is_the_same_in_every_framework(written, tmp_path):
    from transformers import AutoModelForCausalLM as Reference

    model = FlaxAutoModelForCausalLM.from_pretrained(written)
    model.generation_config.max_new_tokens = 7
    model.save_pretrained(tmp_path)
    right = logits(model)
    others = [
        Reference.from_pretrained(tmp_path),
        AutoModelForCausalLM.from_pretrained(tmp_path, backend="torch"),
        FlaxAutoModelForCausalLM.from_pretrained(tmp_path),
    ]
    for other in others:
        np.testing.assert_allclose(logits(other), right, rtol=1e-4, atol=1e-4)
        assert other.generation_config.max_new_tokens == 7
    AutoModelForCausalLM.from_pretrained(written, backend="torch").save_pretrained(tmp_path / "torch")
    again = FlaxAutoModelForCausalLM.from_pretrained(tmp_path / "torch")
    assert np.array_equal(logits(again), logits(FlaxAutoModelForCausalLM.from_pretrained(written)))


def test_weights_have_the_checkpoints_names_and_numbers(written):
    from safetensors.numpy import load_file

    model, stored = FlaxAutoModelForCausalLM.from_pretrained(written), load_file(written / "model.safetensors")
    named = dict(model.named_weights())
    assert set(named) == set(stored)
    assert all(np.array_equal(named[name], stored[name]) for name in stored)
    assert model.num_parameters() == sum(array.size for array in stored.values())
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == model.num_parameters()


def test_sixteen_bits_are_close_to_thirty_two_and_saved_as_such(writing, tmp_path):
    written = writing("llama").directory
    whole, model = logits(FlaxAutoModelForCausalLM.from_pretrained(written)), None
    for kind in ("bfloat16", jax.numpy.float16):
        model = FlaxAutoModelForCausalLM.from_pretrained(written, dtype=kind)
        chances, right = (np.asarray(jax.nn.softmax(one[0])) for one in (logits(model), whole))
        assert np.abs(chances - right).sum(-1).max() / 2 < 0.06  # total variation
    assert model is not None
    model.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).dtype == "float16"
    assert np.array_equal(logits(FlaxAutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))
    ids = jax.numpy.asarray(IDS)
    assert np.array_equal(model.generate(ids, max_new_tokens=3), model.generate(ids, max_new_tokens=3, num_beams=1))
