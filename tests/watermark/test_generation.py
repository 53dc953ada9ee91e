"""generate() marks: the tokens are transformers', alone and in batches; detectors find what the real model writes."""

from __future__ import annotations

import numpy as np
import pytest

from fabula import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    SynthIDTextScoreDetector,
    SynthIDTextWatermarkingConfig,
    WatermarkDetector,
    WatermarkingConfig,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

KEYS = list(range(1000, 1030))
MARKS = {
    "lefthash": WatermarkingConfig(bias=1.5),
    "selfhash of a context": WatermarkingConfig(seeding_scheme="selfhash", context_width=4),
    "SynthID": SynthIDTextWatermarkingConfig(ngram_len=3, keys=KEYS[:8]),
    "SynthID after a while": SynthIDTextWatermarkingConfig(ngram_len=5, keys=KEYS[:3], skip_first_ngram_calls=True),
}
PROMPTS = [[72, 101, 108, 108, 111], [87, 104, 121, 63, 10, 84, 104, 101, 32], [65, 66, 65, 66, 67]]
LENGTH = {"max_new_tokens": 24, "eos_token_id": None}


@pytest.fixture(scope="module", params=["native", "torch"])
def model(request, folder):
    return AutoModelForCausalLM.from_pretrained(folder, backend=request.param)


@pytest.fixture(scope="module")
def reference(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


def their_mark(mark):
    return getattr(transformers, type(mark).__name__)(**mark.to_dict())


@pytest.mark.parametrize("name", MARKS)
def test_the_likeliest_marked_tokens_are_those_of_transformers(model, reference, name):
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        expected = reference.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            watermarking_config=their_mark(MARKS[name]),
            **LENGTH,
        )
        assert model.generate(ids, watermarking_config=MARKS[name], **LENGTH).tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["lefthash", "selfhash of a context"])
def test_marked_beams_are_those_of_transformers(model, reference, name):
    ids = torch.tensor(PROMPTS[:1])
    call = {"num_beams": 3, "do_sample": False, **LENGTH}
    expected = reference.generate(
        ids, attention_mask=torch.ones_like(ids), watermarking_config=their_mark(MARKS[name]), **call
    )
    assert model.generate(ids, watermarking_config=MARKS[name], **call).tolist() == expected.tolist()


@pytest.mark.parametrize("name", MARKS)
def test_drafts_do_not_change_a_marked_text(model, name):
    prompts = [[65, 66, 65, 66, 67, 65, 66], *PROMPTS]
    call = {"watermarking_config": MARKS[name], "do_sample": True, "temperature": 0.3, "seed": 4, **LENGTH}
    assert model.generate(prompts, prompt_lookup_num_tokens=4, **call) == model.generate(prompts, **call)


@pytest.mark.parametrize("name", MARKS)
def test_a_marked_row_of_a_batch_is_the_row_alone(model, name):
    call = {"watermarking_config": MARKS[name], "do_sample": True, "seed": [3, 4, 5], **LENGTH}
    together = model.generate(PROMPTS, **call)
    for row, prompt in enumerate(PROMPTS):
        assert model.generate([prompt], **{**call, "seed": 3 + row}) == [together[row]]


def test_rows_of_a_batch_may_have_different_marks_or_none(model):
    marks = [MARKS["SynthID"], None, MARKS["lefthash"]]
    configs = [GenerationConfig(watermarking_config=mark, do_sample=True, **LENGTH) for mark in marks]
    together = model.generate(PROMPTS, generation_config=configs, seed=[3, 4, 5])
    for row, config in enumerate(configs):
        assert model.generate(PROMPTS[row : row + 1], generation_config=config, seed=3 + row) == [together[row]]


def test_several_marked_sequences_of_a_prompt_differ_and_repeat(model):
    call = {"watermarking_config": MARKS["SynthID"], "do_sample": True, "seed": 3, "num_return_sequences": 3, **LENGTH}
    first = model.generate(PROMPTS[:1], **call)
    assert first == model.generate(PROMPTS[:1], **call)
    assert len({tuple(row) for row in first}) == 3


def test_a_dict_is_a_mark_and_both_kinds_come_back_from_a_file(model, tmp_path):
    expected = model.generate(PROMPTS[:1], watermarking_config=MARKS["lefthash"], **LENGTH)
    assert model.generate(PROMPTS[:1], watermarking_config={"bias": 1.5}, **LENGTH) == expected
    config = type(model.generation_config)(watermarking_config=MARKS["SynthID"])
    config.save_pretrained(tmp_path)
    assert type(config).from_pretrained(tmp_path).watermarking_config == MARKS["SynthID"]


# The default model's own texts: 8 a mark, 8 without. Without a mark z-scores have a deviation of 1 and a mean near 0
# (by lefthash 0.6 over 60 texts, as common pairs of words stand in all of them), so that a mean of 8 above 2 is four
# deviations off, as is one of 24 above 5. With a mark, nine in ten and more of such texts are above 3.

BEGINNINGS = (
    "The history of the old city begins with",
    "A small fox lived in the snowy forest and",
    "The most important idea in science is",
    "My favourite way to cook rice is",
    "The detective opened the door and",
    "Why do children like stories?",
    "A letter to my grandmother:",
    "Rivers that disappear in summer are",
)
REAL = {
    "plain": None,
    "lefthash": WatermarkingConfig(),
    "selfhash": WatermarkingConfig(seeding_scheme="selfhash", context_width=4),
    "SynthID": SynthIDTextWatermarkingConfig(ngram_len=5, keys=KEYS),
}


@pytest.fixture(scope="module")
def written(smollm2_gguf):
    """Texts of 100 tokens for each mark, and what finds it."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(smollm2_gguf), AutoTokenizer.from_pretrained(smollm2_gguf)
    inputs = tokenizer(list(BEGINNINGS), return_tensors="np", padding=True, padding_side="left")
    prompt = inputs["input_ids"].shape[1]
    call = {"do_sample": True, "seed": 5, "max_new_tokens": 100, "eos_token_id": None}
    texts = {
        name: model.generate(**inputs, watermarking_config=mark, **call)[:, prompt:] for name, mark in REAL.items()
    }
    finders = {
        name: WatermarkDetector(model.config, "cpu", REAL[name], ignore_repeated_ngrams=True)
        for name in ("lefthash", "selfhash")
    }
    return texts, {**finders, "SynthID": SynthIDTextScoreDetector(REAL["SynthID"].construct_processor())}


@pytest.mark.parametrize("name", ["lefthash", "selfhash", "SynthID"])
def test_the_default_models_marked_texts_are_found(written, name):
    texts, finders = written
    found = finders[name](texts[name], return_dict=True)
    assert found.prediction.sum() >= 6
    assert found.z_score.mean() > 4
    assert np.median(found.p_value) < 1e-4


@pytest.mark.parametrize("name", ["lefthash", "selfhash", "SynthID"])
def test_the_default_models_plain_texts_are_not_taken_for_marked(written, name):
    texts, finders = written
    for other in ("plain", *({"lefthash", "SynthID"} - {name})):
        found = finders[name](texts[other], return_dict=True)
        assert abs(found.z_score.mean()) < 2, other
        assert found.z_score.max() < 5, other
