"""In JAX models with an encoder give transformers' logits and PyTorch's tokens."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula import AutoModelForSeq2SeqLM, FlaxAutoModelForCausalLM, FlaxAutoModelForSeq2SeqLM  # noqa: E402
from fabula.errors import ArgumentError, NotSupportedError  # noqa: E402

jnp = jax.numpy
WAYS = {
    "greedy": {"output_attentions": True, "output_hidden_states": True},
    "drawn": {"do_sample": True, "seed": 2, "num_return_sequences": 2},
    "beams": {"num_beams": 2, "output_attentions": True},
}


@pytest.fixture(scope="module")
def models(writing):
    written = writing("t5-1.1")
    ours = FlaxAutoModelForSeq2SeqLM.from_pretrained(written.directory)
    theirs = AutoModelForSeq2SeqLM.from_pretrained(written.directory, backend="torch")
    return written.reference, theirs, ours, written.directory


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
    elif right is not None:
        assert isinstance(ours, jax.Array)
        np.testing.assert_allclose(ours, right.detach(), rtol=1e-4, atol=1e-4)


def test_a_call_gives_logits_loss_states_and_weights(models, texts):
    decoder = np.random.default_rng(1).integers(3, 50, (3, 5))
    shown = {"output_hidden_states": True, "output_attentions": True}
    names = ("attention_mask", "decoder_input_ids", "labels")
    given = dict(zip(names, (texts[1], decoder, decoder), strict=True))
    right = models[1](torch.tensor(texts[0]), **{k: torch.tensor(v) for k, v in given.items()}, **shown)
    ours = models[2](jnp.asarray(texts[0]), **{k: jnp.asarray(v) for k, v in given.items()}, **shown)
    for name in set(right.keys()) - {"past_key_values"}:
        assert_close(ours[name], right[name])
    reference = models[0](torch.tensor(texts[0]), **{k: torch.tensor(v) for k, v in given.items()})
    assert_close(ours.logits, reference.logits)
    traced = nnx.jit(lambda model, ids: model(ids, labels=jnp.asarray(decoder)).loss)
    assert np.isfinite(float(traced(models[2], jnp.asarray(texts[0]))))


@pytest.mark.parametrize("way", WAYS)
def test_texts_are_those_of_pytorch(models, texts, way):
    call = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_scores": True, **WAYS[way]}
    right = models[1].generate(torch.tensor(texts[0]), attention_mask=torch.tensor(texts[1]), **call)
    ours = models[2].generate(jnp.asarray(texts[0]), attention_mask=jnp.asarray(texts[1]), **call)
    assert np.array_equal(ours.sequences, right.sequences)
    assert list(ours.keys()) == list(right.keys())
    if way == "greedy":
        for step, expected in zip(ours.cross_attentions, right.cross_attentions, strict=True):
            assert_close(step, expected)
        assert_close(ours.encoder_hidden_states, right.encoder_hidden_states)


def test_texts_that_were_encoded_apart_share_a_step(models):
    prompts = [[5, 6, 7, 8], [9, 10], [11] * 20]
    texts = [
        [one.generated_tokens for one in model.generate_batch(prompts, max_new_tokens=4).values()]
        for model in models[1:3]
    ]
    assert texts[0] == texts[1]


def test_what_an_encoder_left_may_be_given(models, texts):
    model, ids, mask = models[2], jnp.asarray(texts[0]), jnp.asarray(texts[1])
    outputs = model.get_encoder()(ids, attention_mask=mask)
    assert not np.asarray(outputs.last_hidden_state)[texts[1] == 0].any()
    again = model.generate(encoder_outputs=outputs, attention_mask=mask, max_new_tokens=6)
    assert np.array_equal(again, model.generate(ids, attention_mask=mask, max_new_tokens=6))


def test_what_is_saved_is_the_same_in_transformers(models, texts, tmp_path):
    from transformers import AutoModelForSeq2SeqLM as Reference

    models[2].save_pretrained(tmp_path)
    start = torch.zeros((3, 1), dtype=torch.long)
    given = {"attention_mask": torch.tensor(texts[1]), "decoder_input_ids": start}
    found, right = (
        model(torch.tensor(texts[0]), **given).logits for model in (Reference.from_pretrained(tmp_path), models[0])
    )
    assert torch.allclose(found, right, atol=1e-5)


def test_the_wrong_door_and_type_are_refused(models):
    with pytest.raises(ArgumentError, match="must be loaded by FlaxAutoModelForSeq2SeqLM"):
        FlaxAutoModelForCausalLM.from_pretrained(models[3])
    with pytest.raises(NotSupportedError, match="`dtype` must be bfloat16 or float32"):
        FlaxAutoModelForSeq2SeqLM.from_pretrained(models[3], dtype="float16")
    with pytest.raises(ArgumentError, match="`decoder_input_ids` or `decoder_inputs_embeds`"):
        models[2](jnp.ones((1, 3), int))
