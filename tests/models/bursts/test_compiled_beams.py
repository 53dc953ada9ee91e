"""Bursts of beams in JAX and in TensorFlow give the texts of PyTorch, and compile once for each bucket."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula.decoding.closed import record
from tests.equal.frameworks.doors import REFERENCE
from tests.models.bursts.cases import (
    BEAMS,
    DIVERSE_BEAMS,
    DRAWN_BEAMS,
    FORCED_BEAMS,
    NEGATIVE,
    hold_recorded_search,
    noted_bursts,
    recorded_search,
    search,
)


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


def test_guided_beams_are_those_of_pytorch(door, both):
    for name, way in (("gemma3", BEAMS), ("llama", DRAWN_BEAMS), ("llama", DIVERSE_BEAMS), ("llama", FORCED_BEAMS)):
        (model, reference), call = both(name), {**way, **NEGATIVE, "max_new_tokens": 40}
        counts = noted_bursts(model, "run_beams")
        guided = search(door, model, **call)
        assert guided == search(REFERENCE, reference, **call)
        assert sum(counts) > 10 and len(model.bursts.compiled) == 1, "most tokens are of bursts"
        assert guided != search(door, model, **{**call, "guidance_scale": 0.2}) and len(model.bursts.compiled) == 1


def test_diverse_beams_are_those_of_pytorch(door, both):
    model, reference = both("llama")
    for change in ({}, {"early_stopping": True, "diversity_penalty": 2.5, "length_penalty": -1.0}):
        call = {**DIVERSE_BEAMS, **change}
        assert search(door, model, **call) == search(REFERENCE, reference, **call)
    assert len(model.bursts.compiled) == 1, "another penalty compiles nothing"


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
    monkeypatch.setattr(record, "MOST", 20 * 2 * 4 * 12 * 101)
    counts = noted_bursts(model, "run_beams")
    hold_recorded_search(recorded_search(door, model, **BEAMS), recorded_search(REFERENCE, reference, **BEAMS))
    assert len(model.bursts.compiled) == 1
    assert counts[:3] == [20, 20, 20], "of four searches, one of them padding, so many turns take that much"
