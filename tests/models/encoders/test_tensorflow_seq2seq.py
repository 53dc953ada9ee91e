"""Models with an encoder in TensorFlow beside what JAX's do too: variables, gradients, programs, and refusals."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula import AutoModelForSeq2SeqLM, TFAutoModelForSeq2SeqLM  # noqa: E402
from fabula.errors import ArgumentError, MissingDependencyError, NotSupportedError  # noqa: E402
from fabula.models.encoders import tensorflow_encoder  # noqa: E402  # needs tensorflow
from fabula.models.encoders.tensorflow import TFSeq2SeqLM  # noqa: E402
from tests.models.encoders.cases import AFTER, IDS, MASK, TEXTS, uncompiled  # noqa: E402
from tests.models.steps import make_batch, relative_error, shuffled_tables  # noqa: E402


class Loaded:
    """One case: transformers' model, ours in PyTorch and in TensorFlow, and their files."""

    def __init__(self, written):
        self.reference, self.folder = written.reference, written.directory
        self.torch = AutoModelForSeq2SeqLM.from_pretrained(self.folder, backend="torch")
        self.ours = plain(self.folder)


def plain(folder, **options):
    return uncompiled(TFAutoModelForSeq2SeqLM.from_pretrained(folder, **options))


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


def both(given):
    """The arrays in PyTorch, and in TensorFlow."""
    return ({name: make(array) for name, array in given.items()} for make in (torch.tensor, tf.constant))


def assert_close(ours, right):
    assert isinstance(ours, tf.Tensor)
    assert relative_error(ours.numpy(), right.detach()) < 1e-5


@pytest.mark.parametrize("name", ["t5-odd-buckets", "mt5"])
def test_odd_buckets_other_layers_on_either_side_and_mt5_give_the_reference_logits(made, name):
    theirs, own = both({**TEXTS, "decoder_input_ids": np.concatenate([AFTER] * 4, 1)})
    assert_close(made(name).ours(**own).logits, made(name).reference(**theirs).logits)


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
        "fabula.models.encoders.tensorflow.encode_rectangle", lambda *given: encoded.append(given) or encode(*given)
    )
    made = []
    called = model.programs.called
    monkeypatch.setattr(model.programs, "called", lambda name, *given: made.append(name) or called(name, *given))
    model.generate(tf.constant(IDS), max_new_tokens=5, num_beams=2, num_return_sequences=2, do_sample=True, seed=1)
    assert (len(encoded), made.count("memory")) == (1, 1)
    assert len(made) > 5, "the decoder's steps"


def test_an_encoder_reads_vectors(model):
    ids, mask = tf.constant(IDS), tf.constant(MASK)
    outputs = model.run_encoder(ids, mask)
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


def test_without_tensorflow_the_door_says_what_to_install(gated, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "tensorflow" else found(name, *more)
    )
    with pytest.raises(MissingDependencyError, match=r"t5 models need TensorFlow: pip install 'fabula\[tensorflow\]'"):
        TFAutoModelForSeq2SeqLM.from_pretrained(gated.folder)
