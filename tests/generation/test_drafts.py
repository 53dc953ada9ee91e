"""Through generate(): whoever drafts, and however many rows there are, texts are those without drafts."""

from __future__ import annotations

import numpy as np
import pytest

from fabula import AutoModelForCausalLM, GenerationConfig
from fabula.decoding.prompt_lookup import PromptLookup
from fabula.engine.draft_model import ModelDrafter
from fabula.engine.draft_translation import TranslatedDrafter
from fabula.errors import ArgumentError
from fabula.generation.drafts import Assistance, chosen_fields, drafter_of
from fabula.testing.tiny_model import write_tiny_model

PROMPTS = [[72, 101, 108, 108, 111], [97, 98, 97, 98, 97], list(range(40, 90))]
CALLS = {
    "greedy": {"eos_token_id": None},
    "ended": {"repetition_penalty": 1.3, "eos_token_id": [10, 11, 12, 200, 201]},
    "sampled": {"do_sample": True, "seed": 5, "top_k": 12, "num_return_sequences": 2, "eos_token_id": None},
    "guided": {"guidance_scale": 1.5, "eos_token_id": None},
    "marked": {"do_sample": True, "seed": 2, "watermarking_config": {"bias": 2.0}, "eos_token_id": None},
}


@pytest.fixture(scope="module", params=["native", "torch"])
def models(request, tmp_path_factory):
    """A target of four layers, and an assistant of one that has its embeddings."""
    if request.param == "torch":
        pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("models")
    target = AutoModelForCausalLM.from_pretrained(
        write_tiny_model(folder / "target", num_hidden_layers=4), backend=request.param
    )
    assistant = AutoModelForCausalLM.from_pretrained(
        write_tiny_model(folder / "assistant", num_hidden_layers=2), backend="native"
    )
    return target, assistant


def ways(assistant):
    return {
        "lookup": {"prompt_lookup_num_tokens": 4},
        "larger lookup": {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 5},
        "early exit": {"assistant_early_exit": 2, "assistant_confidence_threshold": 0.0, "num_assistant_tokens": 3},
        "assistant": {"assistant_model": assistant, "num_assistant_tokens": 4},
        "heuristic": {"assistant_model": assistant, "num_assistant_tokens_schedule": "heuristic_transient"},
        "another tokenizer": {
            "assistant_model": assistant,
            "assistant_tokenizer": Other(assistant.tokenizer),
            "num_assistant_tokens": 5,
        },
    }


class Other:
    """The assistant's tokenizer under another vocabulary, as far as one can see."""

    def __init__(self, tokenizer):
        self.encode, self.decode = tokenizer.encode, tokenizer.decode

    def get_vocab(self):
        return {"other": 0}


@pytest.mark.parametrize("call", CALLS)
def test_texts_are_those_without_drafts(models, call):
    target, assistant = models
    settings = {"max_new_tokens": 24, "pad_token_id": 258, **CALLS[call]}
    expected = target.generate(PROMPTS, **settings)
    for name, way in ways(assistant).items():
        assert target.generate(PROMPTS, **settings, **way) == expected, name
    alone = target.generate([PROMPTS[1]], **{**settings, "num_return_sequences": 1}, prompt_lookup_num_tokens=4)
    assert len(alone[0]) > len(PROMPTS[1])


def test_scores_and_logits_are_those_without_drafts(models):
    target, assistant = models
    settings = {
        "max_new_tokens": 9, "return_dict_in_generate": True, "output_scores": True, "output_logits": True,
        "eos_token_id": None, "repetition_penalty": 1.2,
    }  # fmt: skip
    expected = target.generate(PROMPTS[:1], **settings)
    drafted = target.generate(PROMPTS[:1], **settings, assistant_model=assistant)
    for ours, theirs in zip((*drafted.scores, *drafted.logits), (*expected.scores, *expected.logits), strict=True):
        assert np.allclose(np.asarray(ours), np.asarray(theirs), atol=1e-4)


def asked(model, call, **given):
    config = GenerationConfig.from_dict({**GenerationConfig().to_dict(), "num_assistant_tokens": 20, **call})
    config.num_assistant_tokens_schedule = config.num_assistant_tokens_schedule or "constant"
    return drafter_of(model, Assistance(config, chosen_fields(call, None), **given))


def test_each_way_has_its_drafter(models):
    target, assistant = models
    assert asked(target, {}) is None
    assert asked(target, {"prompt_lookup_num_tokens": 4}) == PromptLookup(4, 2)
    assert isinstance(asked(target, {}, assistant=assistant), ModelDrafter)
    other = asked(target, {"assistant_lookbehind": 3, "target_lookbehind": 4}, assistant=assistant,
                  assistant_tokenizer=Other(assistant.tokenizer))  # fmt: skip
    assert isinstance(other, TranslatedDrafter) and other.lookbehind == {"target": 4, "own": 3}
    same = asked(target, {}, assistant=assistant, assistant_tokenizer=assistant.tokenizer)
    assert isinstance(same, ModelDrafter)


def test_settings_come_from_the_call_then_from_the_assistant(models):
    target, assistant = models
    assistant.generation_config.num_assistant_tokens = 7
    try:
        assert asked(target, {}, assistant=assistant).limits.length.number == 7
        assert asked(target, {"num_assistant_tokens": 3}, assistant=assistant).limits.length.number == 3
    finally:
        assistant.generation_config.num_assistant_tokens = None
    assert asked(target, {}, assistant=assistant).limits.length.number == 20


def test_the_heuristic_remembers_its_number_and_the_transient_one_does_not(models):
    target, assistant = models
    call = {"max_new_tokens": 20, "eos_token_id": None, "assistant_model": assistant, "num_assistant_tokens": 5}
    target.generate(PROMPTS[:1], **call, num_assistant_tokens_schedule="heuristic_transient")
    assert assistant.generation_config.num_assistant_tokens is None
    target.generate(PROMPTS[:1], **call, num_assistant_tokens_schedule="heuristic")
    assert assistant.generation_config.num_assistant_tokens not in (None, 5)
    assistant.generation_config.num_assistant_tokens = None


def test_a_model_drafts_for_itself_as_an_assistant(models):
    target, _ = models
    expected = target.generate(PROMPTS, max_new_tokens=15, eos_token_id=None)
    assert target.generate(PROMPTS, max_new_tokens=15, eos_token_id=None, assistant_model=target) == expected


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ({"assistant_early_exit": 4}, "assistant_early_exit"),
        ({"assistant_early_exit": 2, "prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens"),
        ({"prompt_lookup_num_tokens": 0}, "prompt_lookup_num_tokens"),
        ({"assistant_model": "small"}, "assistant_model"),
    ],
)
def test_what_makes_no_sense_is_refused(models, call, name):
    with pytest.raises(ArgumentError, match=name):
        models[0].generate(PROMPTS, max_new_tokens=4, **call)


def test_other_vocabularies_need_tokenizers(models, tmp_path):
    target, _ = models
    folder = write_tiny_model(tmp_path / "small", vocab_size=280)
    assistant = AutoModelForCausalLM.from_pretrained(folder, backend="native")
    expected = target.generate(PROMPTS[:2], max_new_tokens=12, eos_token_id=None)
    assert target.generate(PROMPTS[:2], max_new_tokens=12, eos_token_id=None, assistant_model=assistant) == expected
    assistant.tokenizer_loader, assistant._tokenizer = None, None
    with pytest.raises(ArgumentError, match="assistant_tokenizer"):
        target.generate(PROMPTS[:2], max_new_tokens=12, assistant_model=assistant)
