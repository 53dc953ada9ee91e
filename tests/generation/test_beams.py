"""generate() with beams gives what transformers gives on the same weights, for every row of a padded batch."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

import fabula
from fabula.decoding.beam_search import BeamSearch
from fabula.decoding.constrained_beams import ConstrainedBeamSearch
from fabula.decoding.contrastive import ContrastiveSearch
from fabula.decoding.diverse_beams import DiverseBeamSearch
from tests.decoding.searching import tiny_model

pytest.importorskip("transformers")

PAD = 39
PROMPTS = torch.tensor([[PAD, PAD, 3, 7], [5, 1, 8, 2], [PAD, 9, 9, 4]])
MASK = (PROMPTS != PAD).long()
KEPT = {"pad_token_id": PAD, "return_dict_in_generate": True, "output_scores": True, "max_new_tokens": 9}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The same random weights in transformers and here."""
    theirs = tiny_model(0, 40, 0.5)
    folder = tmp_path_factory.mktemp("beams")
    theirs.save_pretrained(folder)
    return theirs, fabula.AutoModelForCausalLM.from_pretrained(str(folder))


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3, "num_return_sequences": 3, "eos_token_id": 27},
        {"num_beams": 4, "early_stopping": True, "length_penalty": 2.0, "eos_token_id": [26, 21]},
        {"num_beams": 2, "early_stopping": "never", "length_penalty": 0.0, "eos_token_id": 26},
        {"num_beams": 5, "num_return_sequences": 2, "no_repeat_ngram_size": 2, "repetition_penalty": 1.2},
    ],
)
def test_beams_of_a_batch_equal_transformers(pair, settings):
    theirs, ours = pair
    expected = [
        theirs.generate(row[mask.bool()][None], do_sample=False, **KEPT, **settings)
        for row, mask in zip(PROMPTS, MASK, strict=True)
    ]
    got = ours.generate(PROMPTS, attention_mask=MASK, **KEPT, **settings)
    results, beams = settings.get("num_return_sequences", 1), settings["num_beams"]
    for index, one in enumerate(expected):
        rows = slice(index * results, (index + 1) * results)
        torch.testing.assert_close(got.sequences_scores[rows], one.sequences_scores, atol=1e-4, rtol=1e-4)
        length = one.beam_indices.shape[1]
        new = one.sequences[:, -length:]
        assert torch.equal(got.sequences[rows, 4 : 4 + length], new)
        indices = got.beam_indices[rows, :length]
        assert torch.equal(torch.where(indices < 0, indices, indices - index * beams), one.beam_indices)


def test_forced_words_and_groups_reach_the_engine(pair):
    _, ours = pair
    forced = ours.generate(PROMPTS, attention_mask=MASK, num_beams=3, force_words_ids=[[11, 12]], max_new_tokens=8)
    for row in forced[:, 4:].tolist():
        assert (11, 12) in pairwise(row)
    grouped = ours.generate(
        PROMPTS,
        attention_mask=MASK,
        num_beams=2,
        num_beam_groups=2,
        diversity_penalty=50.0,
        num_return_sequences=2,
        max_new_tokens=5,
    )[:, 4:]
    assert not (grouped[0::2] == grouped[1::2]).any()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (BeamSearch, {"num_beams": 3}),
        (BeamSearch, {"num_beams": 3, "do_sample": True, "repetition_penalty": 1.2}),
        (DiverseBeamSearch, {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0}),
        (ConstrainedBeamSearch, {"num_beams": 3, "force_words_ids": [[11, 12], [[7], [8, 9]]]}),
        (ContrastiveSearch, {"top_k": 4, "penalty_alpha": 0.6}),
    ],
)
def test_the_prompts_of_a_call_take_their_turns_together(pair, kind, settings, monkeypatch):
    advance, together = kind.advance, []

    def counted(self, turn, underway):
        together.append(len(underway))
        return advance(self, turn, underway)

    monkeypatch.setattr(kind, "advance", counted)
    pair[1].generate(PROMPTS, attention_mask=MASK, max_new_tokens=4, eos_token_id=None, pad_token_id=PAD, **settings)
    assert set(together) == {3}
