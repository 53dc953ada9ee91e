"""In TensorFlow models with an encoder give transformers' logits and PyTorch's tokens."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula import AutoModelForSeq2SeqLM, TFAutoModelForCausalLM, TFAutoModelForSeq2SeqLM  # noqa: E402
from fabula.errors import ArgumentError, NotSupportedError  # noqa: E402
from tests.models.seq2seq_cases import CASES, write  # noqa: E402
from tests.models.steps import relative_error  # noqa: E402

BOUND = 1e-5
WAYS = {
    "greedy": {"output_attentions": True, "output_hidden_states": True},
    "drawn": {"do_sample": True, "seed": 2, "num_return_sequences": 2},
    "beams": {"num_beams": 3, "output_attentions": True},
}


@pytest.fixture(scope="module", params=["t5-1.0", "t5-1.1", "t5-odd-buckets"])
def models(request, tmp_path_factory):
    """A model of transformers, ours in PyTorch and in TensorFlow, and their files."""
    folder = tmp_path_factory.mktemp("model")
    reference = write(next(case for case in CASES if case.name == request.param), folder)
    return reference, AutoModelForSeq2SeqLM.from_pretrained(folder), plain(folder), folder


def plain(folder):
    """The model without XLA, whose compiling would cost what all these tests cost."""
    model = TFAutoModelForSeq2SeqLM.from_pretrained(folder)
    model.programs.xla = False
    return model


@pytest.fixture(scope="module")
def texts():
    ids, mask = np.random.default_rng(0).integers(3, 50, (3, 9)), np.ones((3, 9), int)
    mask[1, :4] = 0
    mask[2, 5:] = 0
    return ids, mask


def assert_close(ours, right):
    if isinstance(right, tuple):
        assert len(ours) == len(right)
        for pair in zip(ours, right, strict=True):
            assert_close(*pair)
    else:
        assert isinstance(ours, tf.Tensor)
        assert relative_error(ours.numpy(), right.detach()) < BOUND


def tensors(framework, **given):
    return {name: framework(array) for name, array in given.items()}


def test_a_call_gives_logits_loss_states_and_weights(models, texts):
    decoder = np.random.default_rng(1).integers(3, 50, (3, 5))
    labels = np.where(np.arange(5) < 3, decoder, -100)
    given = {"input_ids": texts[0], "attention_mask": texts[1], "decoder_input_ids": decoder, "labels": labels}
    shown = {"output_hidden_states": True, "output_attentions": True}
    right = models[1](**tensors(torch.tensor, **given), **shown)
    ours = models[2](**tensors(tf.constant, **given), **shown)
    assert ours.keys() == right.keys()
    for name in set(right.keys()) - {"past_key_values"}:
        assert_close(ours[name], right[name])
    assert_close(ours.logits, models[0](**tensors(torch.tensor, **given)).logits)


@pytest.mark.parametrize("way", WAYS)
def test_texts_are_those_of_pytorch(models, texts, way):
    call = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_scores": True, **WAYS[way]}
    given = {"input_ids": texts[0], "attention_mask": texts[1]}
    right = models[1].generate(**tensors(torch.tensor, **given), **call)
    ours = models[2].generate(**tensors(tf.constant, **given), **call)
    assert isinstance(ours.sequences, tf.Tensor)
    assert np.array_equal(ours.sequences, right.sequences)
    assert list(ours.keys()) == list(right.keys())
    if way == "greedy":
        for step, expected in zip(ours.cross_attentions, right.cross_attentions, strict=True):
            assert_close(step, expected)
        assert_close(ours.encoder_hidden_states, right.encoder_hidden_states)
