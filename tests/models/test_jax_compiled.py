"""Programs in JAX are compiled once a bucket, and are as long for thirty layers as for six."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")

from fabula import FlaxAutoModelForCausalLM, FlaxAutoModelForSeq2SeqLM  # noqa: E402
from fabula.cache.blocks import BLOCK  # noqa: E402
from fabula.cache.groups import layer_groups  # noqa: E402
from fabula.cache.jax import JaxCache  # noqa: E402
from fabula.models.passes.jax import Rows  # noqa: E402
from fabula.testing.tiny_model import write_tiny_model  # noqa: E402
from tests.models.encoders.cases import AFTER, IDS  # noqa: E402


def test_lengths_and_rows_of_one_bucket_are_compiled_once(tmp_path):
    model = FlaxAutoModelForCausalLM.from_pretrained(write_tiny_model(tmp_path, num_hidden_layers=1))
    call = {"max_new_tokens": 3, "max_time": 3600, "eos_token_id": None}  # step by step, as the host looks at its clock

    random = np.random.default_rng(0)  # no prompt begins as another did, which would be found in the cache

    def generate(*lengths):
        model.generate([random.integers(3, 250, length).tolist() for length in lengths], **call)

    generate(5, 9)
    assert model.program.compiled == 2  # prompts, and tokens after them
    generate(12, 3)
    generate(16, 2)
    assert model.program.compiled == 2
    generate(5, 6, 7)
    assert model.program.compiled == 4  # four rows
    generate(9, 10, 11, 12)
    generate(33, 40)
    assert model.program.compiled == 5  # more columns; what follows is as before
    generate(50, 64)
    assert model.program.compiled == 5


def test_a_program_is_as_long_for_thirty_layers_as_for_six(tmp_path):
    def length(layers):
        folder = write_tiny_model(tmp_path / str(layers), num_hidden_layers=layers)
        model = FlaxAutoModelForCausalLM.from_pretrained(folder)
        one = np.zeros((1, 1), np.int32)
        rows = Rows(one, one, one, (np.zeros((1, 4), np.int32),), (np.zeros(1, np.int32),), np.zeros(1, np.int32))
        traced = jax.make_jaxpr(model.program.in_blocks)(model.weights(), model.new_cache(4).state, rows)
        return str(traced).count("\n")

    assert length(30) == length(6)


def test_the_loss_of_a_model_with_an_encoder_may_be_traced(writing):
    model = FlaxAutoModelForSeq2SeqLM.from_pretrained(writing("t5-1.1").directory)
    texts, labels = map(jax.numpy.asarray, (IDS, AFTER))
    traced = nnx.jit(lambda model, ids: model(ids, labels=labels).loss)(model, texts)
    np.testing.assert_allclose(traced, model(texts, labels=labels).loss, rtol=1e-5)


def test_blocks_are_copied_grown_and_read():
    cache = JaxCache(layer_groups([(2, 4, None), (1, 6, None), (2, 4, None)]), 3, np.float32)
    given = np.random.default_rng(0).normal(size=(3, 2, 40, 2, 4)).astype(np.float32)
    narrow = given[..., :1, :1].repeat(6, -1)
    for layer, heads in enumerate((given[0], narrow[1], given[2])):
        cache.write_row(layer, [2, 0], *heads)
    size = cache.nbytes
    cache.copy([2, 0], [0, 1])  # a block may be a source and a target
    cache.grow(40)
    assert cache.blocks == 40
    assert cache.nowhere >= 40 * BLOCK
    assert cache.nbytes == size * cache.nowhere // (16 * BLOCK)
    for layer, heads in enumerate((given[0], narrow[1], given[2])):
        for found, right in zip(cache.read_row(layer, [0, 1], 40), heads, strict=True):
            assert np.array_equal(found, right)


def test_a_step_that_fails_half_way_leaves_a_model_that_works(tmp_path, monkeypatch):
    model = FlaxAutoModelForCausalLM.from_pretrained(write_tiny_model(tmp_path, num_hidden_layers=1))
    right = model.generate([[5, 6, 7]], max_new_tokens=3)
    program = model.program.in_blocks

    def failing(weights, state, rows, taps):
        program(weights, state, rows, taps)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model.program, "in_blocks", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        model.generate([[8, 9, 10]], max_new_tokens=3)
    monkeypatch.undo()
    assert model.generate([[5, 6, 7]], max_new_tokens=3) == right
