"""A model in PyTorch is an nn.Module: losses and gradients are those of transformers."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula.models.torch import TorchCausalLM  # noqa: E402
from tests.models.configurations import FIRST, read_parts, write  # noqa: E402
from tests.models.steps import relative_error  # noqa: E402


@pytest.fixture(scope="module", params=FIRST, ids=str)
def pair(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    reference = write(request.param, directory)
    return TorchCausalLM.from_tensors(*read_parts(directory)), reference


def _inputs():
    # Id 0 is padding, whose vector transformers does not train.
    ids = torch.from_numpy(np.random.default_rng(5).integers(1, 101, (3, 19)))
    mask = torch.ones_like(ids)
    mask[1, 11:] = 0
    mask[2, 4:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    return ids, mask, labels


def _gradients(model, **inputs):
    model.zero_grad()
    output = model(**inputs)
    output.loss.backward()
    return output.loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("padded", [False, True], ids=["full rows", "padded rows"])
def test_loss_and_gradients_are_those_of_transformers(pair, padded):
    ids, mask, labels = _inputs()
    inputs = {"input_ids": ids, "labels": labels} | ({"attention_mask": mask} if padded else {})
    ours, gradients = _gradients(pair[0], **inputs)
    theirs, expected = _gradients(pair[1], **inputs)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert set(gradients) == set(expected)
    for name in expected:
        scale = max(float(expected[name].abs().max()), 1e-3)  # a key's bias has no gradient but rounding
        assert float((gradients[name] - expected[name]).abs().max()) < 1e-4 * scale, name


def test_training_steps_lower_the_loss(pair):
    model = copy.deepcopy(pair[0])
    ids, _, _ = _inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_tied_weights_stay_one_parameter_when_the_model_moves(pair):
    model = copy.deepcopy(pair[0]).to(torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert len(list(model.parameters())) == len(list(pair[1].parameters()))


def test_a_saved_model_is_read_by_both(pair, tmp_path):
    from transformers import AutoModelForCausalLM

    pair[0].save_pretrained(tmp_path / "new")
    ids, _, _ = _inputs()
    again = TorchCausalLM.from_tensors(*read_parts(tmp_path / "new"))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    with torch.no_grad():
        expected = pair[0](ids).logits
        assert torch.equal(again(ids).logits, expected)
        assert relative_error(theirs(ids).logits, expected) < 1e-5
    assert again.config.to_dict() == {**pair[0].config.to_dict(), "dtype": "float32"}


def test_embedded_ids_give_what_the_ids_give(pair):
    ids, mask, _ = _inputs()
    with torch.no_grad():
        vectors = pair[0].get_input_embeddings()(ids)
        assert relative_error(vectors, pair[1].get_input_embeddings()(ids)) < 1e-6
        ours = pair[0](inputs_embeds=vectors, attention_mask=mask).logits
        assert relative_error(ours, pair[0](ids, attention_mask=mask).logits) < 1e-6


def test_dropout_that_is_not_applied_is_announced():
    from fabula.models.families.config import ModelConfig
    from fabula.models.families.table import family_for
    from fabula.models.weights.table import placed_entries

    config = ModelConfig(model_type="gpt2", n_embd=8, n_head=2, n_layer=1, vocab_size=7, n_positions=4, resid_pdrop=0.1)
    family = family_for(config)
    model = TorchCausalLM(family, {entry.name: torch.zeros(entry.shape) for _, _, entry in placed_entries(family)})
    with pytest.warns(UserWarning, match="resid_pdrop"):
        model.train()
