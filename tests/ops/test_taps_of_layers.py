"""The head asked after earlier layers, and passes that stop early: both backends, and their twin."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.taps import Taps
from tests.ops.native_cases import CONFIGS, ISAS, SIZES, make_batch, relative_error, small_model

TOKENS = np.random.default_rng(5).integers(0, 70, 40).astype(np.int32)
BATCH = make_batch([TOKENS[:13], TOKENS[13:20]], [0, 0], [[0], [1]], [4, 12, 19])


def torch_model(name: str):
    """The same weights as `small_model(name)` in PyTorch."""
    pytest.importorskip("torch")
    from fabula.models.families.config import ModelConfig
    from fabula.models.families.table import family_for
    from fabula.models.torch import TorchCausalLM
    from fabula.quant.formats import stored
    from fabula.testing.tiny_model import random_weights

    values = CONFIGS[name] if name == "gpt2" else {**SIZES, **CONFIGS[name]}
    family = family_for(ModelConfig.from_dict(values))
    tensors = {key: stored(key, weight) for key, weight in random_weights(values, seed=3).items()}
    return TorchCausalLM.from_tensors(family, tensors)


@pytest.mark.parametrize("isa", [None, *ISAS[-1:]])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_the_head_after_a_layer_is_the_same_in_every_backend(name, isa):
    model, taps = small_model(name, isa=isa), Taps(layer_logits=(0, 1), final_hidden=True, hidden_states=(1,))
    plain = np.array(model.step(BATCH, model.new_cache(2)).logits)
    native = model.step(BATCH, model.new_cache(2), taps)
    assert np.array_equal(native.logits, plain)
    reference = torch_model(name)
    expected = reference.step(BATCH, reference.new_cache(2), taps)
    assert set(native.layer_logits) == set(expected.layer_logits) == {0, 1}
    assert set(expected.hidden_states) == set(native.hidden_states) == {1}
    for layer in (0, 1):
        assert relative_error(native.layer_logits[layer], expected.layer_logits[layer].numpy()) < 1e-4
    assert relative_error(native.hidden_states[1], expected.hidden_states[1].numpy()) < 1e-4


@pytest.mark.parametrize("isa", [None, *ISAS[-1:]])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_a_pass_that_stops_early_is_that_of_a_model_with_fewer_layers(name, isa):
    model, reference = small_model(name, isa=isa), torch_model(name)
    early = np.array(model.step(BATCH, model.new_cache(2), Taps(last_layer=1)).logits)
    whole = np.array(model.step(BATCH, model.new_cache(2)).logits)
    assert relative_error(early, whole) > 0.01
    expected = reference.step(BATCH, reference.new_cache(2), Taps(last_layer=1)).logits.numpy()
    assert relative_error(early, expected) < 1e-4
    hidden = reference.step(BATCH, reference.new_cache(2), Taps(hidden_states=(1,))).hidden_states[1]
    outside = reference.weights().outside
    from fabula.ops.torch import TorchOps

    ops = TorchOps(None)
    by_hand = reference.family.logits(ops, reference.family.final(ops, hidden, outside), outside)
    assert relative_error(expected, by_hand.detach().numpy()) < 1e-5


def test_every_layer_is_as_good_as_no_limit():
    model = small_model("llama")
    whole = np.array(model.step(BATCH, model.new_cache(2)).logits)
    assert np.array_equal(model.step(BATCH, model.new_cache(2), Taps(last_layer=2)).logits, whole)
