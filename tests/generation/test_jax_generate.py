"""generate() in JAX beside what all frameworks are compared in: callers' own code, pasts, and Flax's conventions."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")
torch = pytest.importorskip("torch")

from fabula import (  # noqa: E402
    AutoModelForCausalLM,
    AutoTokenizer,
    FlaxAutoModelForCausalLM,
    FlaxGenerationMixin,
    GenerationConfig,
    TextStreamer,
)
from fabula.errors import ArgumentError  # noqa: E402


@pytest.fixture(scope="module")
def models(folder):
    return AutoModelForCausalLM.from_pretrained(folder, backend="torch"), FlaxAutoModelForCausalLM.from_pretrained(
        folder
    )


@pytest.fixture(scope="module")
def prompts():
    ids, mask = np.random.default_rng(0).integers(3, 250, (2, 10)), np.ones((2, 10), int)
    mask[1, :4] = 0
    return ids, mask


def test_stop_strings_streamers_and_processors_of_ones_own_work(models, folder, capsys):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer("Hello", return_tensors="jax")
    assert isinstance(inputs["input_ids"], jax.Array)
    seen = []

    def only_letters(input_ids, scores):
        seen.append((type(input_ids), type(scores)))
        return jax.numpy.where(
            jax.numpy.arange(scores.shape[-1]) == 97 + input_ids.shape[1] % 3, scores, -jax.numpy.inf
        )

    streamer = TextStreamer(tokenizer)
    out = models[1].generate(
        **inputs, logits_processor=[only_letters], stop_strings="ca", streamer=streamer, max_new_tokens=9
    )
    assert tokenizer.decode(out[0], skip_special_tokens=True).endswith("ca")
    assert capsys.readouterr().out.strip().endswith("ca")
    assert all(issubclass(kind, jax.Array) for pair in seen for kind in pair)


def test_an_assistant_drafts_what_the_model_would_say(models, prompts):
    ids = jax.numpy.asarray(prompts[0])
    alone = models[1].generate(ids, max_new_tokens=8)
    assert np.array_equal(models[1].generate(ids, max_new_tokens=8, assistant_model=models[0]), alone)


def test_lists_vectors_and_pasts_are_gone_on_from(models, prompts):
    model = models[1]
    whole = model.generate(prompts[0].tolist(), max_new_tokens=6)
    assert isinstance(whole, list)
    embedding = np.asarray(dict(model.named_weights())["model.embed_tokens.weight"])
    given = jax.numpy.asarray(embedding[prompts[0]])
    new = model.generate(inputs_embeds=given, max_new_tokens=6)
    assert np.array_equal(new, [row[10:] for row in whole])
    first = model.generate(jax.numpy.asarray(prompts[0]), max_new_tokens=3, return_dict_in_generate=True)
    again = model.generate(first.sequences, past_key_values=first.past_key_values, max_new_tokens=3)
    assert np.array_equal(again, whole)
    keys, values = first.past_key_values[0]
    assert isinstance(keys, jax.Array)
    assert keys.shape == values.shape == (2, 2, 12, 16)


def test_a_call_with_a_past_gives_the_logits_of_the_whole(models, prompts):
    model, ids = models[1], jax.numpy.asarray(prompts[0])
    first = model(ids[:, :6], use_cache=True)
    rest = model(ids[:, 6:], past_key_values=first.past_key_values)
    np.testing.assert_allclose(rest.logits, model(ids).logits[:, 6:], rtol=1e-4, atol=1e-4)
    assert rest.past_key_values.get_seq_length() == 10


def test_a_key_decides_what_is_drawn_and_without_one_it_is_key_0(models, prompts):
    def drawn(**given):
        ids = jax.numpy.asarray(prompts[0])
        return np.asarray(models[1].generate(ids, do_sample=True, max_new_tokens=8, temperature=2.0, **given)).tolist()

    assert drawn(prng_key=jax.random.key(3)) == drawn(prng_key=jax.random.PRNGKey(3)) == drawn(seed=3)
    assert drawn() == drawn() == drawn(prng_key=jax.random.key(0))
    assert drawn() != drawn(prng_key=jax.random.split(jax.random.key(0))[0])
    assert drawn(trace=False) == drawn()
    with pytest.raises(ArgumentError, match="`prng_key` must be a key of JAX, got int"):
        drawn(prng_key=3)
    with pytest.raises(ArgumentError, match="`prng_key` or `seed`"):
        drawn(prng_key=jax.random.key(3), seed=3)


def test_parameters_of_a_call_stand_for_the_models_own(models, prompts):
    model, ids = models[1], jax.numpy.asarray(prompts[0])
    own = model.generate(ids, max_new_tokens=6)
    turned = jax.tree.map(lambda x: x[::-1], nnx.state(model, nnx.Param))
    other = model.generate(ids, max_new_tokens=6, params=turned)
    assert not np.array_equal(other, own)
    assert np.array_equal(model.generate(ids, max_new_tokens=6, params=nnx.to_pure_dict(nnx.state(model))), own)
    assert np.array_equal(model.generate(ids, max_new_tokens=6), own)
    with pytest.raises(ArgumentError, match=r"`params` must hold the module's own parameters, got 'wrong.weight'"):
        model.generate(ids, params={"wrong": {"weight": ids}})
    with pytest.raises(ArgumentError, match="`params` must have the module's shapes"):
        model.generate(ids, params={"lm_head": {"weight": ids}})
    with pytest.raises(ArgumentError, match="`params` must be a state or a mapping"):
        model.generate(ids, params=[1])


def test_what_makes_no_sense_is_refused_by_name(models, folder):
    model = models[1]
    with pytest.raises(ArgumentError, match="`input_ids` must have 2 dimensions"):
        model.generate(jax.numpy.arange(4))
    with pytest.raises(ArgumentError, match="`input_ids` must hold integers, got float32"):
        model.generate(jax.numpy.ones((1, 4)))
    with pytest.raises(ArgumentError, match="`backend` must be 'jax' or absent for FlaxAutoModelForCausalLM"):
        FlaxAutoModelForCausalLM.from_pretrained(folder, backend="torch")
    with pytest.raises(ArgumentError, match="`device_map` must name a device that JAX finds here, got 'cpu:9'"):
        FlaxAutoModelForCausalLM.from_pretrained(folder, device_map="cpu:9")
    with pytest.raises(ArgumentError, match="`input_ids` or `inputs_embeds`"):
        model()


def test_ids_without_numbers_are_refused_by_name(models):
    with pytest.raises(ArgumentError, match=r"`input_ids` must hold numbers that NumPy has, got .*Tracer"):
        jax.jit(lambda ids: models[1].generate(ids, max_new_tokens=2))(jax.numpy.array([[5, 6]]))


def test_the_model_is_a_module_of_flax_that_splits_merges_and_learns(models, folder, prompts):
    model, ids = FlaxAutoModelForCausalLM.from_pretrained(folder), jax.numpy.asarray(prompts[0])
    assert isinstance(model, nnx.Module)
    assert isinstance(model, FlaxGenerationMixin)
    model.generation_config = GenerationConfig(max_new_tokens=4, pad_token_id=258)
    clone = nnx.merge(*nnx.split(model))
    assert clone.generate(ids).shape == (2, 14)
    assert clone.engine is not model.engine
    assert model.engine is model.engine
    loss, gradient = nnx.value_and_grad(lambda m: m(ids, labels=ids).loss)(model)
    right = models[0](torch.tensor(prompts[0]), labels=torch.tensor(prompts[0])).loss
    assert float(loss) == pytest.approx(right.item(), rel=1e-5)
    assert all(np.abs(np.asarray(leaf)).sum() > 0 for leaf in jax.tree.leaves(gradient))


def test_changed_parameters_are_what_the_next_call_computes_with(folder, prompts):
    model, ids = FlaxAutoModelForCausalLM.from_pretrained(folder), jax.numpy.asarray(prompts[0])
    before = model(ids).logits
    model.lm_head.weight[...] = model.lm_head.weight[...] * 2
    np.testing.assert_allclose(model(ids).logits, before * 2, rtol=1e-5, atol=1e-5)
