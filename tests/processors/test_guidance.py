"""Guided scores equal those of transformers, whether the processor runs the model or is given its logits."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fabula import AutoModelForCausalLM
from fabula import processors as p
from fabula.context import Context
from fabula.errors import ArgumentError
from fabula.processors.processor import whole_rows
from fabula.processors.rows import stack
from fabula.testing.tiny_model import write_tiny_model

INFINITY = float("inf")
VOCABULARY = 30


def embedding(seed=0):
    return np.random.default_rng(seed).normal(0, 1, (VOCABULARY, VOCABULARY)).astype(np.float32)


class Recording:
    """A model whose logits are the mean of its tokens' vectors, and that counts the columns it is shown."""

    def __init__(self, xp, cached=True):
        self.xp = xp
        self.vectors = embedding()
        self.columns = []
        self.cached = cached

    def __call__(self, input_ids, attention_mask=None, past_key_values=None, use_cache=None):
        ids = self.xp.to_host(input_ids)
        self.columns.append(ids.shape[1])
        if past_key_values is not None:
            ids = np.concatenate([past_key_values, ids], axis=1)
        weights = self.xp.to_host(attention_mask).astype(np.float32)[:, :, None]
        assert weights.shape[:2] == ids.shape
        logits = (self.vectors[ids] * weights).cumsum(1) / np.maximum(weights.cumsum(1), 1)
        return SimpleNamespace(
            logits=self.xp.asarray(logits, "float32"), past_key_values=ids if use_cache and self.cached else None
        )


def expected_after(texts, scores, scale):
    """Guided log-probabilities after negative texts, by the formula."""
    log_softmax = lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))  # noqa: E731
    after = log_softmax(np.stack([embedding()[list(text)].mean(0) for text in texts]))
    return after + scale * (log_softmax(scores) - after)


def scores_of(rows, seed=1):
    return np.random.default_rng(seed).normal(0, 3, (rows, VOCABULARY)).astype(np.float32)


@pytest.fixture(scope="module")
def tiny():
    """A model of transformers with random weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=50, **sizes)).eval()


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("negative", ["none", "plain", "padded", "with ones"])
@pytest.mark.parametrize("scale", [1.7, 0.0, -1.0, 1])
def test_guidance_with_a_model_equals_transformers_step_by_step(tiny, negative, scale, use_cache):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("transformers").UnbatchedClassifierFreeGuidanceLogitsProcessor
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 50, (3, 5), generator=generator)
    given = {
        "none": {},
        "plain": {"unconditional_ids": torch.randint(0, 50, (3, 4), generator=generator)},
        "padded": {
            "unconditional_ids": torch.tensor([[0, 0, 7], [0, 4, 5], [1, 2, 3]]),
            "unconditional_attention_mask": torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 1]]),
        },
        "with ones": {
            "unconditional_ids": torch.tensor([[4], [5], [6]]),
            "unconditional_attention_mask": torch.ones((3, 1), dtype=torch.long),
        },
    }[negative]
    reference = theirs(scale, tiny, use_cache=use_cache, **given)
    mine = p.UnbatchedClassifierFreeGuidanceLogitsProcessor(scale, tiny, use_cache=use_cache, **given)
    for _ in range(4):
        scores = torch.randn((3, 50), generator=generator)
        with torch.no_grad():
            expected, got = reference(ids, scores), mine(ids, scores)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        ids = torch.cat([ids, expected.argmax(-1, keepdim=True)], dim=1)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_model_of_ours_guides_too(tmp_path, backend):
    torch = pytest.importorskip("torch")
    model = AutoModelForCausalLM.from_pretrained(write_tiny_model(tmp_path / "model"), backend=backend, dtype="float32")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        after = model(torch.tensor([[9, 8, 3, 4]])).logits[0, -1].log_softmax(-1)
        scores = torch.randn((1, 259), generator=torch.Generator().manual_seed(0))
        guided = p.UnbatchedClassifierFreeGuidanceLogitsProcessor(1.5, model, unconditional_ids=[[9, 8]])
        guided(ids, scores)
        guided(torch.cat([ids, torch.tensor([[3]])], 1), scores)
        got = guided(torch.cat([ids, torch.tensor([[3, 4]])], 1), scores)
    expected = after + 1.5 * (scores.log_softmax(-1) - after)
    torch.testing.assert_close(got[0], expected[0], rtol=1e-4, atol=1e-4)


def test_only_new_columns_are_run_and_exchanged_rows_are_run_again(xp):
    model = Recording(xp)
    guided = p.UnbatchedClassifierFreeGuidanceLogitsProcessor(2.0, model, [[1, 2], [3, 4]])
    scores = scores_of(2)
    texts = [
        [[9, 9, 9], [8, 8, 8]],
        [[9, 9, 9, 5], [8, 8, 8, 6]],
        [[9, 9, 9, 5, 7], [8, 8, 8, 6, 7]],
        [[8, 8, 8, 6, 7, 1], [8, 8, 8, 6, 7, 2]],  # the second row of before, twice
    ]
    for text in texts:
        got = guided(xp.asarray(text, "int64"), xp.asarray(scores, "float32"))
        shown = [start + row[3:] for start, row in zip([[1, 2], [3, 4]], text, strict=True)]
        np.testing.assert_allclose(xp.to_host(got), expected_after(shown, scores, 2.0), rtol=1e-4, atol=1e-5)
    assert model.columns == [2, 1, 1, 5]


def test_a_text_that_begins_again_forgets_the_last_one(xp):
    model = Recording(xp)
    guided = p.UnbatchedClassifierFreeGuidanceLogitsProcessor(2.0, model)
    scores = xp.asarray(scores_of(1), "float32")
    first = xp.to_host(guided(xp.asarray([[4, 5]], "int64"), scores))
    guided(xp.asarray([[4, 5, 6]], "int64"), scores)
    assert np.array_equal(first, xp.to_host(guided(xp.asarray([[4, 5]], "int64"), scores)))


def test_a_function_of_ids_alone_is_a_model(xp):
    vectors = embedding()

    def model(input_ids):
        return xp.asarray(
            vectors[xp.to_host(input_ids)].cumsum(1) / (1 + np.arange(input_ids.shape[1]))[:, None], "float32"
        )

    guided = p.UnbatchedClassifierFreeGuidanceLogitsProcessor(0.5, model, [[7]])
    scores = scores_of(2)
    guided(xp.asarray([[1], [2]], "int64"), xp.asarray(scores, "float32"))
    got = guided(xp.asarray([[1, 4], [2, 5]], "int64"), xp.asarray(scores, "float32"))
    np.testing.assert_allclose(xp.to_host(got), expected_after([[7, 4], [7, 5]], scores, 0.5), rtol=1e-4, atol=1e-5)


def given_logits(xp, rows):
    tokens = xp.asarray(np.zeros((rows, 3)), "int32")
    lengths = xp.asarray(np.full(rows, 3), "int32")
    return Context(tokens, lengths, lengths, unconditional=xp.asarray(scores_of(rows, seed=5), "float32"))


def test_logits_that_the_engine_gives_are_used_and_no_model_is_run(xp):
    def model(**arguments):
        raise AssertionError("run")

    scores = xp.asarray(scores_of(2), "float32")
    context = given_logits(xp, 2)
    got = xp.to_host(p.UnbatchedClassifierFreeGuidanceLogitsProcessor(3.0, model).process(scores, context))
    a, b = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (scores_of(2, seed=5), scores_of(2)))
    np.testing.assert_allclose(got, a + 3 * (b - a), rtol=1e-4, atol=1e-5)


def test_rows_with_and_without_guidance_share_a_batch(xp):
    guided = [p.UnbatchedClassifierFreeGuidanceLogitsProcessor(scale, None) for scale in (3.0, 3.0, 1.5)]
    top = p.TopKLogitsWarper(5)
    recipes = [[guided[0], top], [top], [guided[1]], [guided[2]], []]
    scores = xp.asarray(scores_of(5), "float32")
    context = given_logits(xp, 5)
    together = xp.to_host(stack(recipes)(scores, context))
    for row, recipe in enumerate(recipes):
        one = slice(row, row + 1)
        alone = replace(
            context,
            tokens=context.tokens[one],
            lengths=context.lengths[one],
            prompt_lengths=context.prompt_lengths[one],
            unconditional=context.unconditional[one],
        )
        got = xp.to_host(p.LogitsProcessorList(recipe).process(scores[one], alone))
        np.testing.assert_allclose(together[one], got, rtol=1e-6, atol=1e-6)


def test_a_processor_of_the_callers_meets_its_own_rows_logits(xp):
    """Not stackable, so it is handed its rows only, and their logits with them."""

    class Louder(p.UnbatchedClassifierFreeGuidanceLogitsProcessor):
        def process(self, scores, context):
            return super().process(scores, context) * 2

    scores, context = xp.asarray(scores_of(3), "float32"), given_logits(xp, 3)
    whole = xp.to_host(Louder(2.0, None).process(scores, context))
    got = xp.to_host(stack([[], [Louder(2.0, None)], []])(scores, context))
    np.testing.assert_allclose(got[1], whole[1], rtol=1e-6)
    assert np.array_equal(got[0], scores_of(3)[0])


@pytest.mark.parametrize("scale", [1.5, 3])
def test_guidance_of_a_doubled_batch_equals_transformers(xp, scale):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("transformers").ClassifierFreeGuidanceLogitsProcessor(scale)
    scores, ids = scores_of(6), np.zeros((3, 2), np.int64)
    expected = theirs(torch.tensor(ids), torch.tensor(scores)).numpy()
    mine = p.ClassifierFreeGuidanceLogitsProcessor(scale)
    got = mine(xp.asarray(ids, "int64"), xp.asarray(scores, "float32"))
    np.testing.assert_allclose(xp.to_host(got), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ArgumentError, match=r"scores.* two rows .*5 for 3"):
        mine.process(xp.asarray(scores[:5], "float32"), whole_rows(xp.asarray(ids, "int64")))


@pytest.mark.parametrize("scale", [1, 0.5, INFINITY, "2"])
def test_a_doubled_batch_needs_a_scale_above_one(scale):
    with pytest.raises(ArgumentError, match="guidance_scale"):
        p.ClassifierFreeGuidanceLogitsProcessor(scale)


def test_what_cannot_be_guided_is_refused(xp):
    ids, scores = xp.asarray([[1], [2], [3]], "int64"), xp.asarray(scores_of(3), "float32")
    with pytest.raises(ArgumentError, match=r"model.*None"):
        p.UnbatchedClassifierFreeGuidanceLogitsProcessor(2.0, None)(ids, scores)
    with pytest.raises(ArgumentError, match=r"unconditional_ids.*2 for 3"):
        p.UnbatchedClassifierFreeGuidanceLogitsProcessor(2.0, Recording(xp), [[1], [2]])(ids, scores)
    with pytest.raises(ArgumentError, match=r"guidance_scale.*nan"):
        p.UnbatchedClassifierFreeGuidanceLogitsProcessor(float("nan"), None)
