"""Bursts in JAX and in TensorFlow give the texts of PyTorch, and compile once for each bucket."""

from __future__ import annotations

from importlib import import_module

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula.decoding import closed_record
from tests.equal.frameworks.doors import DOORS, REFERENCE, step_by_step
from tests.models.burst_cases import (
    BEAMS,
    CONTRASTED,
    CONTRASTIVE,
    DIVERSE_BEAMS,
    DRAWN_BEAMS,
    FORCED_BEAMS,
    GUIDED,
    PLAIN,
    SAMPLED,
    WORDS,
    generate,
    hold_recorded,
    hold_recorded_search,
    noted_bursts,
    recorded,
    recorded_search,
    search,
)


@pytest.fixture(params=["jax", "tensorflow"])
def door(request):
    DOORS[request.param].require()
    return DOORS[request.param]


@pytest.fixture
def both(door, writing):
    """name -> a small model in the framework, and the same in PyTorch."""

    def load(name):
        directory = writing(name).directory
        model = door.load(directory)
        if door.backend == "tensorflow":
            model.programs.xla = False  # of single steps; bursts are compiled
        return model, REFERENCE.load(directory)

    return load


@pytest.fixture
def turned(door, monkeypatch):
    """The weights that TensorFlow turned for a burst."""
    found = []
    if door.backend == "tensorflow":
        burst = import_module("fabula.models.tensorflow_burst")
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
    monkeypatch.setattr(closed_record, "MOST", 20 * 2 * 4 * 4 * 101)
    counts = noted_bursts(model)
    found = recorded(door, model)
    with step_by_step(reference):
        hold_recorded(found, recorded(REFERENCE, reference))
    assert len(model.bursts.compiled) == 1
    assert counts[:3] == [20, 20, 20], "of four rows, one of them padding, so many turns take that much"


def test_beams_are_those_of_pytorch(door, both):
    model, reference = both("gemma3")
    assert search(door, model, 1, **BEAMS) == search(REFERENCE, reference, 1, **BEAMS)
    assert len(model.bursts.compiled) == 1


def test_other_numbers_compile_nothing_for_beams(door, both):
    model, reference = both("llama")
    for change in (
        {},
        {"early_stopping": True, "temperature": 0.8},
        {"early_stopping": "never", "length_penalty": 2.0},
    ):
        call = {**DRAWN_BEAMS, **change}
        assert search(door, model, **call) == search(REFERENCE, reference, **call)
    assert len(model.bursts.compiled) == 1, "three searches and at most 128 positions are one bucket"
    search(door, model, 2, **{**DRAWN_BEAMS, "max_new_tokens": 20, "seed": 8})
    assert len(model.bursts.compiled) == 1, "it serves two searches as well"


def test_diverse_beams_are_those_of_pytorch(door, both):
    model, reference = both("llama")
    for change in ({}, {"early_stopping": True, "diversity_penalty": 2.5, "length_penalty": -1.0}):
        call = {**DIVERSE_BEAMS, **change}
        assert search(door, model, **call) == search(REFERENCE, reference, **call)
    assert len(model.bursts.compiled) == 1, "another penalty compiles nothing"


def test_contrastive_search_is_that_of_pytorch_and_other_numbers_compile_nothing(door, both, monkeypatch):
    model, reference = both("llama")
    settled, run = [], model.bursts.run_texts
    monkeypatch.setattr(model.bursts, "run_texts", lambda *given: settled.append(run(*given)) or settled[-1])
    for rows, change in ((3, {}), (3, {"penalty_alpha": 0.9, "repetition_penalty": 1.3}), (2, {"max_new_tokens": 70})):
        call = {**CONTRASTIVE, **change}
        assert generate(door, model, rows, **call) == generate(REFERENCE, reference, rows, **call)
    assert len(model.bursts.compiled) == 1, "three texts and at most 128 positions are one bucket"
    assert max(len(own) for burst in settled for own in burst) == 64, "most tokens are of bursts"


def test_other_words_compile_nothing(door, both):
    model, reference = both("llama")
    texts = [generate(door, model, 1, **call) for call in WORDS]
    assert texts == [generate(REFERENCE, reference, 1, **call) for call in WORDS]
    assert len(model.bursts.compiled) == 1 and texts[0] != texts[1], "and they act"


def test_forced_beams_are_those_of_pytorch(door, both):
    model, reference = both("llama")
    counts = noted_bursts(model, "run_beams")
    for change in (
        {},
        {"force_words_ids": [[40, 41, 42]], "early_stopping": True},
        {"force_words_ids": [[[50], [51, 52]], [53], [54]], "length_penalty": -1.0},
    ):
        call, before = {**FORCED_BEAMS, **change}, sum(counts)
        assert search(door, model, **call) == search(REFERENCE, reference, **call)
        assert sum(counts) - before > 10, "most tokens are of bursts"
    assert len(model.bursts.compiled) == 1, "other phrases compile nothing"


def test_what_is_kept_of_the_turns_of_beams_is_that_of_pytorch(door, both, monkeypatch):
    model, reference = both("llama")
    monkeypatch.setattr(closed_record, "MOST", 20 * 2 * 4 * 12 * 101)
    counts = noted_bursts(model, "run_beams")
    hold_recorded_search(recorded_search(door, model, **BEAMS), recorded_search(REFERENCE, reference, **BEAMS))
    assert len(model.bursts.compiled) == 1
    assert counts[:3] == [20, 20, 20], "of four searches, one of them padding, so many turns take that much"
