"""What a model with an encoder answers is what transformers' generate() answers on the same weights."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import fabula  # noqa: E402
from fabula import AutoModelForSeq2SeqLM  # noqa: E402
from fabula.errors import ArgumentError  # noqa: E402
from tests.models.encoders.cases import CASES, write  # noqa: E402

BACKENDS = {0: "native", 1: "torch", 3: "torch", 4: "native"}


@pytest.fixture(scope="module", params=BACKENDS, ids=lambda number: f"{CASES[number]}-{BACKENDS[number]}")
def pair(request, tmp_path_factory):
    """Ours and theirs."""
    folder = tmp_path_factory.mktemp("t5")
    reference = write(CASES[request.param], folder)
    return AutoModelForSeq2SeqLM.from_pretrained(folder, backend=BACKENDS[request.param]), reference


@pytest.fixture(scope="module")
def texts():
    """Ids and mask of five texts, padded on either side."""
    random = np.random.default_rng(8)
    ids, mask = torch.zeros(5, 30, dtype=torch.long), torch.zeros(5, 30, dtype=torch.long)
    for row, (begin, end) in enumerate([(0, 30), (13, 30), (29, 30), (0, 7), (2, 28)]):
        ids[row, begin:end] = torch.from_numpy(random.integers(2, 61, end - begin))
        mask[row, begin:end] = 1
    return ids, mask


CALLS = {
    "greedy": {"max_new_tokens": 25},
    "long": {"max_new_tokens": 70, "eos_token_id": None},
    "a length that counts the start": {"max_length": 12, "min_length": 6},
    "a penalty": {"max_new_tokens": 20, "repetition_penalty": 1.7, "no_repeat_ngram_size": 2},
    "starts of their own": {"max_new_tokens": 9, "decoder_start_token_id": [3, 9, 0, 4, 60]},
    "begun answers": {"max_new_tokens": 9, "decoder_input_ids": torch.arange(10, 25).view(5, 3)},
    "answers begun by the start": {"max_length": 9, "decoder_input_ids": torch.tensor([[0, 4]] * 5)},
    "beams": {"max_new_tokens": 12, "num_beams": 4},
    "several beams": {"max_new_tokens": 12, "num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5},
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_answers_are_those_of_transformers(pair, texts, call):
    ours, theirs = pair
    ids, mask = texts
    expected = theirs.generate(ids, attention_mask=mask, do_sample=False, **call)
    found = ours.generate(ids, attention_mask=mask, **call)
    if "num_beams" in call:  # transformers takes a pad token of 0 for none, and fills with the end token
        ended = (expected == 1).cumsum(1) - (expected == 1).long() > 0
        expected = expected.masked_fill(ended, 0)
    assert found.tolist() == expected.tolist()


def test_lists_of_texts_are_answered_by_lists(pair, texts):
    ours, theirs = pair
    ids, mask = texts
    rows = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
    found = ours.generate(rows, max_new_tokens=8, eos_token_id=None)
    assert found == theirs.generate(ids, attention_mask=mask, max_new_tokens=8, eos_token_id=None).tolist()


def test_an_encoding_is_answered_as_the_text_that_it_is_of(pair, texts):
    ours, _ = pair
    ids, mask = texts
    expected = ours.generate(ids, attention_mask=mask, max_new_tokens=10)
    encoded = ours.get_encoder()(ids, mask)
    assert ours.generate(attention_mask=mask, encoder_outputs=encoded, max_new_tokens=10).tolist() == expected.tolist()


def test_equal_answers_to_different_texts_share_nothing(pair, texts):
    """The decoder's prompts are long and equal; the engine must not take one row's keys for another's."""
    ours, theirs = pair
    ids, mask = texts
    begun = torch.cat([torch.zeros(5, 1, dtype=torch.long), torch.arange(2, 50).expand(5, 48)], 1)
    call = {"decoder_input_ids": begun, "max_new_tokens": 6, "eos_token_id": None}
    expected = theirs.generate(ids, attention_mask=mask, **call)
    for _ in range(2):
        assert ours.generate(ids, attention_mask=mask, **call).tolist() == expected.tolist()


def test_samples_of_one_text_share_its_memory_and_a_row_alone_draws_the_same(pair, texts):
    ours, _ = pair
    ids, mask = texts
    call = {"do_sample": True, "seed": 5, "max_new_tokens": 10, "eos_token_id": None, "top_k": 0}
    several = ours.generate(ids[:1], attention_mask=mask[:1], num_return_sequences=4, **call)
    assert len({tuple(row) for row in several.tolist()}) > 1
    assert ours.generate(ids[:1], attention_mask=mask[:1], **call).tolist() == several[:1].tolist()


@pytest.mark.parametrize("name", ["encoder_repetition_penalty", "encoder_no_repeat_ngram_size"])
def test_what_the_encoder_read_can_be_preferred_or_forbidden(pair, name):
    ours, theirs = pair
    ids = torch.from_numpy(np.random.default_rng(9).integers(2, 61, (3, 20)))
    for value in (1, 2) if name.endswith("size") else (1.6, 0.7):
        call = {name: value, "max_new_tokens": 12}
        assert ours.generate(ids, **call).tolist() == theirs.generate(ids, do_sample=False, **call).tolist()


@pytest.mark.parametrize("beams", [1, 3])
def test_everything_that_is_asked_for_is_returned(pair, texts, beams):
    ours, theirs = pair
    ids, mask = texts
    call = {"max_new_tokens": 5, "num_beams": beams, "eos_token_id": None, "return_dict_in_generate": True}
    weights = hasattr(ours, "parameters")  # a native model has none to show
    call |= dict.fromkeys(("output_scores", "output_logits", "output_hidden_states"), True)
    call["output_attentions"] = weights
    found = ours.generate(ids, attention_mask=mask, **call)
    expected = theirs.generate(ids, attention_mask=mask, do_sample=False, **call)
    assert type(found).__name__ == type(expected).__name__
    assert torch.equal(found.sequences, expected.sequences)
    for name in ("scores", "logits"):
        for one, other in zip(found[name], expected[name], strict=True):
            assert torch.allclose(one, other, atol=1e-3, rtol=1e-4)
    for one, other in zip(found.encoder_hidden_states, expected.encoder_hidden_states, strict=True):
        assert torch.allclose(one[mask.bool()], other[mask.bool()], atol=1e-3, rtol=1e-4)
    if weights:
        assert [x.shape for x in found.encoder_attentions] == [x.shape for x in expected.encoder_attentions]
    for name in ("decoder_hidden_states", *(("decoder_attentions", "cross_attentions") if weights else ())):
        for one, other in zip(found[name], expected[name], strict=True):
            for here, there in zip(one, other, strict=True):
                assert torch.allclose(here, there, atol=1e-3, rtol=1e-4)


def test_drafts_change_no_answer(pair, texts):
    ours, _ = pair
    ids, mask = texts
    call = {"attention_mask": mask, "max_new_tokens": 30, "eos_token_id": None}
    expected = ours.generate(ids, **call)
    assert ours.generate(ids, prompt_lookup_num_tokens=4, **call).tolist() == expected.tolist()
    alone = {**call, "attention_mask": mask[2:3]}
    assert ours.generate(ids[2:3], prompt_lookup_num_tokens=4, **alone).tolist() == expected[2:3].tolist()


def test_texts_that_cannot_be_read_are_refused(pair, monkeypatch):
    ours, _ = pair
    with pytest.raises(ArgumentError, match=r"\[0, 61\), got 61"):
        ours.generate([[1, 61]], max_new_tokens=2)
    with pytest.raises(ArgumentError, match="has to be defined"):
        ours.generate(max_new_tokens=2)
    monkeypatch.setattr(ours, "generation_config", fabula.GenerationConfig(max_new_tokens=2))
    with pytest.raises(ArgumentError, match="`decoder_start_token_id` or `bos_token_id` has to be defined"):
        ours.generate([[1, 2]])
