"""The model as people hold it in TensorFlow: its door, its calls, its files, its weights."""

from __future__ import annotations

import sys

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from fabula import AutoModelForCausalLM, AutoTokenizer, TFAutoModelForCausalLM  # noqa: E402
from fabula.errors import ArgumentError, ContextLengthError, MissingDependencyError, NotSupportedError  # noqa: E402
from fabula.models.passes import tensorflow as tensorflow_pass  # noqa: E402  # needs tensorflow
from fabula.models.tensorflow import TFCausalLM  # noqa: E402
from fabula.ops.periods import Period  # noqa: E402

IDS = [[72, 101, 108, 108, 111], [49, 44, 32, 50, 44]]
CALL = {"max_new_tokens": 8, "eos_token_id": None}


@pytest.fixture(scope="module")
def model(folder):
    return plain(TFAutoModelForCausalLM.from_pretrained(folder))


def plain(model):
    """The model without XLA, whose compiling would cost what all these tests cost."""
    model.programs.xla, model.burst = False, None
    return model


def test_the_door_gives_a_module_whose_weights_tensorflow_finds(model):
    assert isinstance(model, TFCausalLM)
    assert isinstance(model, tf.Module)
    assert sum(int(tf.size(one)) for one in model.trainable_variables) == model.num_parameters()
    assert model.dtype == tf.float32


def test_layers_that_repeat_are_one_stack(model):
    assert model.weights.periods == (Period(0, 1, len(model.layers)),)
    stacks = [one for one in model.trainable_variables if one.shape[0] == len(model.layers)]
    assert len(stacks) == len(model.family.layer_weights(model.layers[0]))


def test_what_the_tokenizer_gives_for_tensorflow_is_generated_from(model, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = tokenizer(["Hello", "1, 2, 3, "], return_tensors="tf", padding=True)
    found = TFAutoModelForCausalLM.from_pretrained(folder).generate(**given, **CALL)  # all of it compiled
    assert isinstance(found, tf.Tensor)
    assert found.dtype == tf.int32
    native = AutoModelForCausalLM.from_pretrained(folder, backend="torch", dtype="float32")
    rows = [
        ids[mask.numpy() == 1].numpy().tolist() for ids, mask in zip(given.input_ids, given.attention_mask, strict=True)
    ]
    assert [row[-8:] for row in native.generate(rows, **CALL)] == found.numpy()[:, -8:].tolist()


def test_a_processor_may_take_the_length_as_transformers_4_gave_it(model):
    lengths = []

    def only_token_5(input_ids, scores, cur_len):
        lengths.append(cur_len)
        assert input_ids.dtype == tf.int32
        return tf.where(tf.range(scores.shape[-1]) == 5, scores, -float("inf"))

    found = model.generate(tf.constant(IDS[:1]), logits_processor=[only_token_5], **CALL)
    assert found.numpy()[0, -8:].tolist() == [5] * 8
    assert lengths == list(range(5, 13))


def test_lengths_of_a_bucket_share_a_program(folder, monkeypatch):
    model, traced = plain(TFAutoModelForCausalLM.from_pretrained(folder)), []
    compute = tensorflow_pass.compute
    monkeypatch.setattr(tensorflow_pass, "compute", lambda *given: traced.append(given) or compute(*given))
    for rows in (3, 4):
        for length in (3, 7, 16):
            model.generate([[65 + row] * (length - row % 2) for row in range(rows)], **CALL)
    assert len(traced) == 2, "prompts of up to 16 tokens, and tokens after up to 128, of up to four rows"
    model.generate([[65] * 17] * 3, **CALL)
    assert len(traced) == 3, "a longer prompt is another bucket"


def test_a_past_continues_rows(model):
    ids = tf.constant(IDS)
    whole, begun = model(ids).logits, model(ids[:, :3])
    rest = model(ids[:, 3:], past_key_values=begun.past_key_values).logits
    np.testing.assert_allclose(tf.concat([begun.logits, rest], 1), whole, atol=1e-5)
    kept = model.generate(ids, return_dict_in_generate=True, **CALL)
    longer = model.generate(kept.sequences, past_key_values=kept.past_key_values, max_new_tokens=3, eos_token_id=None)
    assert longer.numpy().tolist() == model.generate(ids, **{**CALL, "max_new_tokens": 11}).numpy().tolist()


def test_vectors_stand_for_ids(model):
    vectors = tf.gather(model.weights.outside.embed, IDS)
    np.testing.assert_allclose(model(inputs_embeds=vectors).logits, model(tf.constant(IDS)).logits, atol=1e-5)
    found = model.generate(inputs_embeds=vectors, **CALL)
    assert found.numpy().tolist() == model.generate(tf.constant(IDS), **CALL).numpy()[:, 5:].tolist()


def test_saved_weights_load_in_every_backend_and_back(model, folder, tmp_path):
    from safetensors.numpy import load_file

    model.save_pretrained(tmp_path / "tf")
    saved, given = load_file(tmp_path / "tf" / "model.safetensors"), load_file(folder / "model.safetensors")
    assert set(saved) <= set(given)
    assert all(np.array_equal(saved[name], given[name]) for name in saved)
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "tf", backend="torch")
    assert other.generate(IDS, **CALL) == model.generate(IDS, **CALL)
    other.save_pretrained(tmp_path / "torch")
    again = plain(TFAutoModelForCausalLM.from_pretrained(tmp_path / "torch"))
    assert again.generate(IDS, **CALL) == model.generate(IDS, **CALL)


def test_bfloat16_stays_near_float32(model, folder, tmp_path):
    half = plain(TFAutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16"))
    assert half.dtype == tf.bfloat16
    near, right = (tf.nn.softmax(one(tf.constant(IDS)).logits).numpy() for one in (half, model))
    assert 0.5 * np.abs(near - right).sum(-1).max() < 0.1
    assert half.generate(tf.constant(IDS), **CALL).shape == (2, 13)
    half.save_pretrained(tmp_path)
    assert TFAutoModelForCausalLM.from_pretrained(tmp_path).dtype == tf.bfloat16


def test_a_call_can_be_differentiated(model):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.reduce_logsumexp(model(tf.constant(IDS), training=True).logits, -1))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(one is not None for one in gradients)
    step = 1e-2
    weight = model.weights.outside.norm
    variable = next(one for one in model.trainable_variables if one.shape == weight.shape)
    direction = gradients[[id(one) for one in model.trainable_variables].index(id(variable))]
    variable.assign_add(step * direction)
    after = tf.reduce_mean(tf.reduce_logsumexp(model(tf.constant(IDS)).logits, -1))
    variable.assign_sub(step * direction)
    assert float(after - loss) == pytest.approx(step * float(tf.reduce_sum(direction**2)), rel=0.2)


@pytest.mark.parametrize(
    ("call", "error", "reason"),
    [
        ({"input_ids": [[1]], "inputs_embeds": [[[1.0]]]}, ArgumentError, "not both"),
        ({"input_ids": [1]}, ArgumentError, "2 dimensions"),
        ({"input_ids": [[1.5]]}, ArgumentError, "integers"),
        ({"input_ids": [[1] * 3000]}, ContextLengthError, "context"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, ArgumentError, "shape"),
        ({"input_ids": [[1, 2]], "position_ids": [[3, 4]]}, NotSupportedError, "position_ids"),
        ({"input_ids": [[1]], "past_key_values": 3}, ArgumentError, "past_key_values"),
    ],
)
def test_calls_that_make_no_sense_are_refused(model, call, error, reason):
    with pytest.raises(error, match=reason):
        model(**call)


def test_what_is_not_done_here_is_refused(model, folder):
    with pytest.raises(ArgumentError, match="backend"):
        TFAutoModelForCausalLM.from_pretrained(folder, backend="torch")
    with pytest.raises(NotSupportedError, match="device_map"):
        TFAutoModelForCausalLM.from_pretrained(folder, device_map="cuda:0")


def test_without_tensorflow_the_door_says_what_to_install(folder, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "tensorflow" else found(name, *more)
    )
    with pytest.raises(MissingDependencyError, match=r"pip install 'fabula\[tensorflow\]'"):
        TFAutoModelForCausalLM.from_pretrained(folder)
    assert "tensorflow" in sys.modules
