"""Bursts in TensorFlow give the texts of PyTorch, and compile once for each bucket."""

from __future__ import annotations

import pytest

tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula.decoding import closed_record  # noqa: E402
from fabula.models import tensorflow_burst  # noqa: E402  # needs tensorflow
from fabula.models.tensorflow import TFCausalLM  # noqa: E402  # needs tensorflow
from fabula.models.tensorflow_burst import Turned  # noqa: E402  # needs tensorflow
from fabula.models.torch import TorchCausalLM  # noqa: E402  # needs torch
from fabula.ops.tensorflow import FEW  # noqa: E402  # needs tensorflow
from tests.models.burst_cases import (  # noqa: E402  # noqa: E402
    CONTRASTED,
    DIVERSE_BEAMS,
    DRAWN_BEAMS,
    GUIDED,
    PLAIN,
    SAMPLED,
    generate,
    hold_recorded,
    noted_bursts,
    recorded,
    search,
)
from tests.models.configurations import CASES, read_family, read_tensors, write  # noqa: E402

NAMES = ("llama", "gemma3", "gpt2")


class StepByStep(TorchCausalLM):
    burst = None


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """name -> the family and the weights of a small random model."""
    found = {}
    for case in CASES:
        if case.name in NAMES:
            folder = tmp_path_factory.mktemp(case.name)
            write(case, folder)
            found[case.name] = read_family(folder), read_tensors(folder)
    return found


@pytest.mark.parametrize(
    ("name", "call"),
    [("llama", PLAIN), ("gemma3", PLAIN), ("gpt2", SAMPLED), ("llama", GUIDED), ("gemma3", CONTRASTED)],
)
def test_texts_are_those_of_pytorch(written, monkeypatch, name, call):
    turned = []
    monkeypatch.setattr(tensorflow_burst, "Turned", lambda weights: turned.append(weights) or Turned(weights))
    model, reference = TFCausalLM.from_tensors(*written[name]), TorchCausalLM.from_tensors(*written[name])
    expected = generate(reference, torch.as_tensor, **call)
    assert generate(model, tf.constant, **call).tolist() == expected.tolist()
    assert model.bursts.compiled
    rows = next(iter(model.bursts.compiled))[3]
    assert bool(turned) == (rows > FEW), "few rows are multiplied one by one, by matrices as they lie"


def test_other_numbers_compile_nothing(written):
    model = TFCausalLM.from_tensors(*written["llama"])
    generate(model, tf.constant, **SAMPLED)
    assert len(model.bursts.compiled) == 1, "six rows and at most 128 positions are one bucket"
    for change in ({"temperature": 1.4, "top_k": 7}, {"seed": 6, "max_new_tokens": 40}, {"top_p": 0.5}):
        generate(model, tf.constant, **{**SAMPLED, **change})
    assert len(model.bursts.compiled) == 1
    generate(model, tf.constant, rows=1, **SAMPLED)
    assert len(model.bursts.compiled) == 1, "it serves two rows as well"
    generate(model, tf.constant, rows=1, **{**SAMPLED, "num_return_sequences": 1})
    assert len(model.bursts.compiled) == 2, "one row is another bucket"


def test_what_is_kept_of_each_step_is_that_of_pytorch(written, monkeypatch):
    model, reference = TFCausalLM.from_tensors(*written["llama"]), StepByStep.from_tensors(*written["llama"])
    monkeypatch.setattr(closed_record, "MOST", 20 * 2 * 4 * 4 * 101)
    counts = noted_bursts(model)
    hold_recorded(recorded(model, tf.constant), recorded(reference, torch.as_tensor))
    assert len(model.bursts.compiled) == 1
    assert counts[:3] == [20, 20, 20], "of four rows, one of them padding, so many turns take that much"


def test_other_numbers_compile_nothing_for_beams(written):
    model, reference = TFCausalLM.from_tensors(*written["llama"]), TorchCausalLM.from_tensors(*written["llama"])
    for change in (
        {},
        {"early_stopping": True, "temperature": 0.8},
        {"early_stopping": "never", "length_penalty": 2.0},
    ):
        call = {**DRAWN_BEAMS, **change}
        assert search(model, tf.constant, **call) == search(reference, torch.as_tensor, **call)
    assert len(model.bursts.compiled) == 1, "three searches and at most 128 positions are one bucket"
    search(model, tf.constant, 2, **{**DRAWN_BEAMS, "max_new_tokens": 20, "seed": 8})
    assert len(model.bursts.compiled) == 1, "it serves two searches as well"


def test_diverse_beams_are_those_of_pytorch(written):
    model, reference = TFCausalLM.from_tensors(*written["llama"]), TorchCausalLM.from_tensors(*written["llama"])
    for change in ({}, {"early_stopping": True, "diversity_penalty": 2.5, "length_penalty": -1.0}):
        call = {**DIVERSE_BEAMS, **change}
        assert search(model, tf.constant, **call) == search(reference, torch.as_tensor, **call)
    assert len(model.bursts.compiled) == 1, "another penalty compiles nothing"
