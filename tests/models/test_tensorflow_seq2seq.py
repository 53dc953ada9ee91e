"""In TensorFlow models with an encoder give transformers' logits and PyTorch's tokens."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula import AutoModelForSeq2SeqLM, TFAutoModelForCausalLM, TFAutoModelForSeq2SeqLM  # noqa: E402
from fabula.errors import ArgumentError, MissingDependencyError, NotSupportedError  # noqa: E402
from fabula.models import tensorflow_encoder  # noqa: E402  # needs tensorflow
from fabula.models.tensorflow_seq2seq import TFSeq2SeqLM  # noqa: E402
from fabula.testing.tiny_model import write_tiny_model  # noqa: E402
from tests.models.steps import make_batch, relative_error, shuffled_tables  # noqa: E402

BOUND = 1e-5
WAYS = {
    "greedy": {"output_attentions": True, "output_hidden_states": True},
    "drawn": {"do_sample": True, "seed": 2, "num_return_sequences": 2},
    "beams": {"num_beams": 3, "output_attentions": True},
}


class Loaded:
    """One case: transformers' model, ours in PyTorch and in TensorFlow, and their files."""

    def __init__(self, written):
        self.reference, self.folder = written.reference, written.directory
        self.torch = AutoModelForSeq2SeqLM.from_pretrained(self.folder, backend="torch")
        self.ours = plain(self.folder)


def plain(folder, **options):
    """The model without XLA, whose compiling would cost what all these tests cost, and so without bursts."""
    model = TFAutoModelForSeq2SeqLM.from_pretrained(folder, **options)
    model.programs.xla, model.burst, model.burst_beams, model.burst_texts = False, None, None, None
    return model


@pytest.fixture(scope="module")
def made(writing):
    """Each case by its name."""
    return cache(lambda name: Loaded(writing(name)))


@pytest.fixture(scope="module", params=["t5-1.0", "t5-1.1"])
def written(request, made):
    return made(request.param)


@pytest.fixture(scope="module")
def gated(made):
    return made("t5-1.1")


@pytest.fixture(scope="module")
def model(gated):
    return gated.ours


IDS, MASK = np.random.default_rng(0).integers(3, 50, (3, 9)), np.ones((3, 9), int)
MASK[1, :4] = 0
MASK[2, 5:] = 0
TEXTS = {"input_ids": IDS, "attention_mask": MASK}
AFTER = np.random.default_rng(1).integers(3, 50, (3, 5))


def both(given):
    """The arrays in PyTorch, and in TensorFlow."""
    return ({name: make(array) for name, array in given.items()} for make in (torch.tensor, tf.constant))


def assert_close(ours, right):
    if isinstance(right, tuple):
        assert len(ours) == len(right)
        for pair in zip(ours, right, strict=True):
            assert_close(*pair)
    else:
        assert isinstance(ours, tf.Tensor)
        assert relative_error(ours.numpy(), right.detach()) < BOUND


def test_a_call_gives_logits_loss_states_and_weights(written):
    labels = np.where(np.arange(5) < 3, AFTER, -100)
    theirs, own = both({**TEXTS, "decoder_input_ids": AFTER, "labels": labels})
    shown = {"output_hidden_states": True, "output_attentions": True}
    right, found = written.torch(**theirs, **shown), written.ours(**own, **shown)
    assert found.keys() == right.keys()
    for name in set(right.keys()) - {"past_key_values"}:
        assert_close(found[name], right[name])
    assert_close(found.logits, written.reference(**theirs).logits)


@pytest.mark.parametrize("name", ["t5-odd-buckets", "mt5"])
def test_odd_buckets_other_layers_on_either_side_and_mt5_give_the_reference_logits(made, name):
    theirs, own = both({**TEXTS, "decoder_input_ids": np.concatenate([AFTER] * 4, 1)})
    assert_close(made(name).ours(**own).logits, made(name).reference(**theirs).logits)


@pytest.mark.parametrize("way", WAYS)
def test_texts_are_those_of_pytorch(written, way):
    call = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_scores": True, **WAYS[way]}
    theirs, own = both(TEXTS)
    right, found = written.torch.generate(**theirs, **call), written.ours.generate(**own, **call)
    assert isinstance(found.sequences, tf.Tensor)
    assert np.array_equal(found.sequences, right.sequences)
    assert list(found.keys()) == list(right.keys())
    if way == "greedy":
        for step, expected in zip(found.cross_attentions, right.cross_attentions, strict=True):
            assert_close(step, expected)
        assert_close(found.encoder_hidden_states, right.encoder_hidden_states)


def test_compiled_they_are_the_same(gated):
    model, call = TFAutoModelForSeq2SeqLM.from_pretrained(gated.folder), {"num_beams": 2, "max_new_tokens": 5}
    theirs, own = both(TEXTS)
    assert np.array_equal(model.generate(**own, **call), gated.torch.generate(**theirs, **call))
    assert len(model.programs.compiled) == 4, "the encoder, what it leaves, beginnings and steps"
    model.generate(own["input_ids"][:, :7], max_new_tokens=8, num_beams=2)
    assert len(model.programs.compiled) == 4, "another text of the same bucket"


def test_a_text_is_encoded_once_whatever_becomes_of_it(model, monkeypatch):
    encoded = []
    encode = tensorflow_encoder.encode_rectangle
    monkeypatch.setattr(
        "fabula.models.tensorflow_seq2seq.encode_rectangle", lambda *given: encoded.append(given) or encode(*given)
    )
    made = []
    called = model.programs.called
    monkeypatch.setattr(model.programs, "called", lambda name, *given: made.append(name) or called(name, *given))
    model.generate(tf.constant(IDS), max_new_tokens=5, num_beams=2, num_return_sequences=2, do_sample=True, seed=1)
    assert (len(encoded), made.count("memory")) == (1, 1)
    assert len(made) > 5, "the decoder's steps"


def test_texts_that_were_encoded_apart_share_a_step(gated):
    prompts = [[5, 6, 7, 8], [9, 10], [11] * 20]
    found, right = (
        [one.generated_tokens for one in model.generate_batch(prompts, max_new_tokens=4).values()]
        for model in (gated.ours, gated.torch)
    )
    assert found == right


def test_what_an_encoder_left_may_be_given(model):
    ids, mask = tf.constant(IDS), tf.constant(MASK)
    outputs = model.get_encoder()(ids, attention_mask=mask)
    assert not outputs.last_hidden_state.numpy()[MASK == 0].any()
    right = model.generate(ids, attention_mask=mask, max_new_tokens=6)
    for given in (outputs, outputs.to_tuple(), {"last_hidden_state": outputs.last_hidden_state}):
        assert np.array_equal(model.generate(encoder_outputs=given, attention_mask=mask, max_new_tokens=6), right)
    vectors = tf.gather(model.weights.outside.embed, ids)
    again = model.run_encoder(inputs_embeds=vectors, attention_mask=mask, return_dict=False)
    np.testing.assert_allclose(again[0], outputs[0], atol=1e-5)


def test_a_past_continues_without_the_text(model):
    whole = model(tf.constant(IDS), decoder_input_ids=tf.constant(AFTER)).logits
    begun = model(tf.constant(IDS), decoder_input_ids=tf.constant(AFTER[:, :2]))
    rest = model(decoder_input_ids=tf.constant(AFTER[:, 2:]), past_key_values=begun.past_key_values).logits
    np.testing.assert_allclose(tf.concat([begun.logits, rest], 1), whole, atol=1e-4)


def test_gradients_are_those_of_pytorch(gated):
    theirs, own = both({**TEXTS, "labels": AFTER})
    gated.torch(**theirs).loss.backward()
    with tf.GradientTape() as tape:
        loss = gated.ours(**own, training=True).loss
    found = dict(zip(gated.ours.parameters, tape.gradient(loss, list(gated.ours.parameters.values())), strict=True))
    assert all(one is not None for one in found.values())
    for name in ("shared.weight", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"):
        right = gated.torch.get_parameter(name).grad
        assert relative_error(tf.convert_to_tensor(found[name]).numpy(), right) < 1e-4
    gated.torch.zero_grad()


def test_what_is_saved_is_the_same_everywhere(written, tmp_path):
    from transformers import AutoModelForSeq2SeqLM as Reference

    written.ours.save_pretrained(tmp_path / "tensorflow")
    written.torch.save_pretrained(tmp_path / "torch")
    theirs, own = both({**TEXTS, "decoder_input_ids": AFTER})
    right = written.reference(**theirs).logits
    for one in (Reference, AutoModelForSeq2SeqLM):
        assert (
            relative_error(one.from_pretrained(tmp_path / "tensorflow")(**theirs).logits.detach(), right.detach())
            < 1e-5
        )
    for folder in ("tensorflow", "torch"):
        assert_close(plain(tmp_path / folder)(**own).logits, right)


def test_each_weight_is_one_variable(written):
    model = written.ours
    assert isinstance(model, TFSeq2SeqLM)
    assert sum(int(tf.size(one)) for one in model.trainable_variables) == model.num_parameters()
    assert model.num_parameters() == written.torch.num_parameters()
    assert model.num_parameters(exclude_embeddings=True) == written.torch.num_parameters(exclude_embeddings=True)
    assert model.is_tied == written.torch.is_tied


def test_bfloat16_stays_near_float32(gated):
    half = plain(gated.folder, dtype="bfloat16")
    assert half.dtype == tf.bfloat16
    _, own = both({**TEXTS, "decoder_input_ids": AFTER})
    near, right = (tf.nn.softmax(one(**own).logits).numpy() for one in (half, gated.ours))
    assert 0.5 * np.abs(near - right).sum(-1).max() < 0.2
    encoded = gated.ours.run_encoder(own["input_ids"], own["attention_mask"]).last_hidden_state.numpy()
    del own["input_ids"]
    again = half(encoder_outputs=(encoded,), **own).logits
    assert 0.5 * np.abs(tf.nn.softmax(again).numpy() - right).sum(-1).max() < 0.2, "of another type than the model's"


def test_steps_of_a_model_without_memories_are_refused(model):
    rows = AFTER.tolist()
    tables, blocks = shuffled_tables(rows, np.random.default_rng(0))
    batch = make_batch(rows, [0, 1, 2], [0] * 3, [5] * 3, tables)
    with pytest.raises(ArgumentError, match="must have a memory, got none"):
        model.step(batch, model.new_cache(blocks))
    with pytest.raises(ArgumentError, match="what `encode` of its model returned, got str"):
        model.step(replace(batch, memories=["x", "y", "z"]), model.new_cache(blocks))


ONE = [[1, 2, 3]]


@pytest.mark.parametrize(
    ("call", "error", "reason"),
    [
        ({"decoder_input_ids": ONE}, ArgumentError, "`input_ids` or `inputs_embeds` must be given"),
        ({"input_ids": ONE}, ArgumentError, "`decoder_input_ids` or `decoder_inputs_embeds` must be given"),
        ({"input_ids": ONE, "decoder_input_ids": [[61]]}, ArgumentError, "`decoder_input_ids` must lie in"),
        ({"input_ids": [[1.5]], "decoder_input_ids": ONE}, ArgumentError, "`input_ids` must hold integers"),
        ({"input_ids": ONE, "decoder_input_ids": ONE * 2}, ArgumentError, "must have 1 rows, .* got 2"),
        ({"input_ids": ONE, "decoder_input_ids": ONE, "labels": [[1]]}, ArgumentError, "`labels` must have the shape"),
        (
            {"input_ids": ONE, "decoder_input_ids": ONE, "decoder_attention_mask": [[1, 0, 1]]},
            NotSupportedError,
            "`decoder_attention_mask` must have its zeros before or behind",
        ),
        ({"input_ids": ONE * 2, "attention_mask": [[1] * 3, [0] * 3], "labels": ONE * 2}, ArgumentError, "in each row"),
        (
            {"inputs_embeds": [[[1.0]]], "decoder_input_ids": ONE},
            ArgumentError,
            "`inputs_embeds` must be 24 wide, got 1",
        ),
        (
            {"encoder_outputs": (np.ones((1, 2, 3)),), "decoder_input_ids": ONE},
            ArgumentError,
            "`encoder_outputs` must be 24 wide, got 3",
        ),
        ({"encoder_outputs": 3, "decoder_input_ids": ONE}, ArgumentError, "`encoder_outputs` must hold .* got int"),
        ({"past_key_values": ((1,),), "decoder_input_ids": ONE}, ArgumentError, "`past_key_values`.*got tuple"),
    ],
)
def test_calls_that_make_no_sense_are_refused(model, call, error, reason):
    with pytest.raises(error, match=reason):
        model(**call)


def test_each_door_takes_its_own_models(gated, tmp_path):
    with pytest.raises(ArgumentError, match="must be loaded by TFAutoModelForSeq2SeqLM, got TFAutoModelForCausalLM"):
        TFAutoModelForCausalLM.from_pretrained(gated.folder)
    with pytest.raises(ArgumentError, match="must be loaded by TFAutoModelForCausalLM, got TFAutoModelForSeq2SeqLM"):
        TFAutoModelForSeq2SeqLM.from_pretrained(write_tiny_model(tmp_path))
    with pytest.raises(NotSupportedError, match="`dtype` must be bfloat16 or float32 for t5"):
        TFAutoModelForSeq2SeqLM.from_pretrained(gated.folder, dtype="float16")
    with pytest.raises(ArgumentError, match="`backend` must be 'tensorflow' or absent"):
        TFAutoModelForSeq2SeqLM.from_pretrained(gated.folder, backend="torch")


def test_without_tensorflow_the_door_says_what_to_install(gated, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "tensorflow" else found(name, *more)
    )
    with pytest.raises(MissingDependencyError, match=r"t5 models need TensorFlow: pip install 'fabula\[tensorflow\]'"):
        TFAutoModelForSeq2SeqLM.from_pretrained(gated.folder)
