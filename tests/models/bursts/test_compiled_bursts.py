"""Bursts in JAX and in TensorFlow give the texts of PyTorch, and compile once for each bucket."""

from __future__ import annotations

from importlib import import_module

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula.decoding.closed import record
from tests.equal.frameworks.doors import REFERENCE, step_by_step
from tests.models.bursts.cases import (
    CONTRASTED,
    CONTRASTIVE,
    ENDS,
    GUIDED,
    MARKED,
    NEGATIVE,
    PLAIN,
    READ,
    SAMPLED,
    TOKENS,
    WORDS,
    generate,
    hold_recorded,
    noted_bursts,
    recorded,
)


@pytest.fixture
def turned(door, monkeypatch):
    """The weights that TensorFlow turned for a burst."""
    found = []
    if door.backend == "tensorflow":
        burst = import_module("fabula.models.bursts.tensorflow")
        turn = burst.Turned
        monkeypatch.setattr(burst, "Turned", lambda weights: found.append(weights) or turn(weights))
    return found


@pytest.mark.parametrize(
    ("name", "call"),
    [("llama", PLAIN), ("gemma3", PLAIN), ("gpt2", SAMPLED), ("llama", GUIDED), ("gemma3", CONTRASTED)],
)
def test_texts_are_those_of_pytorch(door, both, turned, name, call):
    model, reference = both(name)
    assert generate(door, model, **call) == generate(REFERENCE, reference, **call)
    assert model.bursts.compiled
    if door.backend == "tensorflow":
        rows, few = next(iter(model.bursts.compiled))[-2], import_module("fabula.ops.tensorflow").FEW
        assert bool(turned) == (rows > few), "few rows are multiplied one by one, by matrices as they lie"


def test_other_numbers_compile_nothing(door, both):
    model, _ = both("llama")
    generate(door, model, **SAMPLED)
    assert len(model.bursts.compiled) == 1, "six rows and at most 128 positions are one bucket"
    for change in ({"temperature": 1.4, "top_k": 7}, {"seed": 6, "max_new_tokens": 40}, {"top_p": 0.5}):
        generate(door, model, **{**SAMPLED, **change})
    assert len(model.bursts.compiled) == 1
    generate(door, model, rows=1, **SAMPLED)
    assert len(model.bursts.compiled) == 1, "it serves two rows as well"
    generate(door, model, rows=1, **{**SAMPLED, "num_return_sequences": 1})
    assert len(model.bursts.compiled) == 2, "one row is another bucket"


def test_another_guidance_scale_compiles_nothing_and_guides(door, both):
    model, _ = both("llama")
    alone = {**GUIDED, "negative_prompt_ids": [[5, 6]], "do_sample": False, "max_new_tokens": 20}
    found = [generate(door, model, rows=1, **{**alone, "guidance_scale": scale}) for scale in (0.5, 4.0)]
    assert found[0] != found[1] and len(model.bursts.compiled) == 1


def test_what_is_kept_of_each_step_is_that_of_pytorch(door, both, monkeypatch):
    model, reference = both("llama")
    monkeypatch.setattr(record, "MOST", 20 * 2 * 4 * 4 * 101)
    counts = noted_bursts(model)
    found = recorded(door, model)
    with step_by_step(reference):
        hold_recorded(found, recorded(REFERENCE, reference))
    assert len(model.bursts.compiled) == 1
    assert counts[:3] == [20, 20, 20], "of four rows, one of them padding, so many turns take that much"


def test_contrastive_search_is_that_of_pytorch_and_other_numbers_compile_nothing(door, both, monkeypatch):
    model, reference = both("llama")
    settled, run = [], model.bursts.run_texts
    monkeypatch.setattr(model.bursts, "run_texts", lambda *given: settled.append(run(*given)) or settled[-1])
    for rows, change in ((3, {}), (3, {"penalty_alpha": 0.9, "repetition_penalty": 1.3}), (2, {"max_new_tokens": 70})):
        call = {**CONTRASTIVE, **change}
        assert generate(door, model, rows, **call) == generate(REFERENCE, reference, rows, **call)
    assert len(model.bursts.compiled) == 1, "three texts and at most 128 positions are one bucket"
    assert max(len(own) for burst in settled for own in burst) == 64, "most tokens are of bursts"


def test_guided_contrastive_search_is_that_of_pytorch(door, both):
    model, reference = both("gemma3")
    for change in ({}, {"guidance_scale": 0.3, "penalty_alpha": 0.2}):
        call = {**CONTRASTIVE, **NEGATIVE, **change}
        assert generate(door, model, **call) == generate(REFERENCE, reference, **call)
    assert len(model.bursts.compiled) == 1, "another scale compiles nothing"


def test_a_tournament_of_marks_is_that_of_pytorch(door, both):
    model, reference = both("llama")
    counts = noted_bursts(model)
    with step_by_step(reference):
        expected = generate(REFERENCE, reference, **MARKED)
    assert generate(door, model, **MARKED) == expected
    unmarked = generate(door, model, **{**MARKED, "watermarking_config": None})
    assert unmarked != expected and max(counts) > 30, "most tokens are of bursts"


@pytest.mark.parametrize("calls", [WORDS, TOKENS, ENDS, READ], ids=["words", "tokens", "ends", "read"])
def test_other_words_and_tokens_compile_nothing(door, both, calls):
    model, reference = both("llama")
    texts = [generate(door, model, 1, **call) for call in calls]
    assert texts == [generate(REFERENCE, reference, 1, **call) for call in calls]
    assert len(model.bursts.compiled) == 1 and texts[0] != texts[1], "and they act"
