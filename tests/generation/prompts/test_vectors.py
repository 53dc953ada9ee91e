"""Rows that start from vectors go on as rows that start from the ids of these vectors."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fabula import AutoModelForCausalLM  # noqa: E402
from fabula.errors import ArgumentError  # noqa: E402

IDS = torch.tensor([[0, 0, 5, 9, 11], [7, 8, 20, 21, 22]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])


@pytest.fixture(scope="module")
def embed(folder):
    return AutoModelForCausalLM.from_pretrained(folder, backend="torch", dtype="float32").get_input_embeddings()


CALLS = [
    {},
    {"num_beams": 3},
    {"penalty_alpha": 0.6, "top_k": 3},
    {"do_sample": True, "seed": 4, "num_return_sequences": 2},
    {"prompt_lookup_num_tokens": 3},
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: next(iter(call), "greedy"))
def test_vectors_of_ids_give_the_texts_of_ids_without_the_prompt(model, embed, call):
    call = {**call, "max_new_tokens": 7, "eos_token_id": None, "pad_token_id": 0}
    expected = model.generate(IDS, attention_mask=MASK, **call)
    vectors = embed(IDS).detach()
    assert model.generate(inputs_embeds=vectors, attention_mask=MASK, **call).tolist() == expected[:, 5:].tolist()
    both = model.generate(IDS, inputs_embeds=vectors, attention_mask=MASK, **call)
    assert both.tolist() == expected.tolist()


@pytest.mark.parametrize(
    "call",
    [
        {"bad_words_ids": [[3], [4, 5]]},
        {"sequence_bias": [[[3, 4], 2.0], [[9], 5.0]], "num_beams": 2},
        {"watermarking_config": {"bias": 3.0}},
        {"watermarking_config": {"bias": 3.0, "seeding_scheme": "selfhash", "context_width": 2}},
    ],
    ids=lambda call: next(iter(call)),
)
def test_processors_that_look_back_find_nothing_before_the_first_token(model, embed, folder, call):
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    call = {**call, "inputs_embeds": embed(IDS).detach(), "attention_mask": MASK, "max_new_tokens": 5}
    expected = reference.generate(**call, eos_token_id=None, pad_token_id=0)
    assert model.generate(**call, eos_token_id=None, pad_token_id=0).tolist() == expected.tolist()


def test_what_does_not_fit_is_refused(model, embed):
    with pytest.raises(ArgumentError, match="inputs_embeds"):
        model.generate(inputs_embeds=torch.zeros(2, 3), max_new_tokens=2)
    with pytest.raises(ArgumentError, match=r"input_ids.*shape"):
        model.generate(IDS[:, :2], inputs_embeds=embed(IDS).detach(), max_new_tokens=2)


def test_processors_see_new_tokens_only(model, embed):
    seen = []

    def spy(ids, scores):
        seen.append(ids.shape)
        return scores

    model.generate(inputs_embeds=embed(IDS[1:]).detach(), logits_processor=[spy], max_new_tokens=3, eos_token_id=None)
    assert seen == [(1, 0), (1, 1), (1, 2)]
    assert np.all(model.generate(IDS[1:], logits_processor=[spy], max_new_tokens=1).shape == (1, 6))


def test_processors_that_look_back_find_nothing_behind_one_vector(model, embed):
    call = {"max_new_tokens": 3, "bad_words_ids": [[7, 8]], "eos_token_id": None, "pad_token_id": 0}
    right = model.generate(IDS[1:, :1], **call)
    assert model.generate(inputs_embeds=embed(IDS[1:, :1]).detach(), **call).tolist() == right[:, 1:].tolist()


def test_log_probabilities_of_beams_are_those_behind_the_vectors(model, embed):
    call = {"num_beams": 2, "max_new_tokens": 3, "return_dict_in_generate": True, "output_log_probabilities": True}
    right = model.generate(IDS[1:], **call).log_probabilities
    found = model.generate(inputs_embeds=embed(IDS[1:]).detach(), **call).log_probabilities
    np.testing.assert_allclose(found, right, atol=1e-4)
