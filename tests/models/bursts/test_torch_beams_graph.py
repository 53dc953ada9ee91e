"""Turns of beam search that are captured once and replayed find what turns do that are run."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula.models.encoders.torch import TorchSeq2SeqLM  # noqa: E402  # needs torch
from tests.equal.frameworks.doors import REFERENCE  # noqa: E402
from tests.models.bursts.cases import prompts, search  # noqa: E402
from tests.models.bursts.taped import (  # noqa: E402  # needs torch
    SEARCHES,
    WINDOWS,
    Seq2SeqStepByStep,
    taped,
    unhurry,
)
from tests.models.bursts.torch_bursts import StepByStep  # noqa: E402  # needs torch
from tests.models.placement.pretended_devices import PretendedDevices  # noqa: E402  # needs torch


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    unhurry(monkeypatch)


def searched(model, rows=3, **call):
    """What a search finds, and the beams that it came by."""
    with PretendedDevices():
        return search(REFERENCE, model, rows, **call)


@pytest.mark.parametrize(
    ("name", "call"),
    [*((name, "best") for name in ("gpt2", *WINDOWS)), *(("llama", call) for call in SEARCHES if call != "best")],
)
def test_searches_are_those_of_single_turns(parts, name, call):
    (model, recorder), reference = taped(parts(name)), StepByStep.from_tensors(*parts(name))
    assert searched(model, **SEARCHES[call]) == searched(reference, **SEARCHES[call])
    assert recorder.replays > 5


def test_with_an_encoder_too(parts):
    model, recorder = taped(parts("t5-1.1"), TorchSeq2SeqLM)
    reference = Seq2SeqStepByStep.from_tensors(*parts("t5-1.1"))
    call = {"max_new_tokens": 40, "num_beams": 3, "eos_token_id": 1, "do_sample": False}
    ids = torch.as_tensor(prompts()[0]) % 50 + 3
    expected = reference.generate(ids, **call).tolist()
    with PretendedDevices():
        assert model.generate(ids, **call).tolist() == expected
    assert recorder.replays


def test_one_graph_serves_other_seeds_and_penalties(parts):
    (model, recorder), reference = taped(parts("llama")), StepByStep.from_tensors(*parts("llama"))
    once = {**SEARCHES["drawn"], "num_return_sequences": 1, "max_new_tokens": 40, "rows": 1}
    for change in ({}, {"seed": 9}, {"length_penalty": -0.5, "temperature": 0.9}, {"early_stopping": True}, {}):
        assert searched(model, **{**once, **change}) == searched(reference, **{**once, **change})
    assert recorder.captures == 1
    (tape,) = recorder.tapes
    assert tape.orphans() == 0
