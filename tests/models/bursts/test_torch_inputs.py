"""A step that is captured once and replayed gives the texts of steps that are run, whatever the rows ask for."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula import GenerationConfig  # noqa: E402
from fabula.models.encoders.torch import TorchSeq2SeqLM  # noqa: E402  # needs torch
from tests.equal.frameworks.doors import REFERENCE  # noqa: E402
from tests.models.bursts.cases import ASK, hold_recorded, prompts, recorded  # noqa: E402
from tests.models.bursts.taped import (  # noqa: E402  # needs torch
    CALLS,
    NAMES,
    T5,
    Seq2SeqStepByStep,
    refusing,
    taped,
    texts,
    unhurry,
)
from tests.models.bursts.torch_bursts import StepByStep  # noqa: E402  # needs torch
from tests.models.placement.pretended_devices import PretendedDevices  # noqa: E402  # needs torch

MIXED = [  # of three rows
    {"do_sample": False, "max_new_tokens": 13, "repetition_penalty": 1.3},
    {"do_sample": True, "max_new_tokens": 26, "top_k": 5, "temperature": 0.7, "no_repeat_ngram_size": 3},
    {"do_sample": True, "max_new_tokens": 20, "top_k": 40, "typical_p": 0.9, "top_h": 0.6},
]


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    unhurry(monkeypatch)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        *((name, call) for name in NAMES for call in ("plain", "sampled")),
        *((name, call) for name in ("llama", "gemma3-pattern") for call in CALLS if call not in ("plain", "sampled")),
    ],
)
def test_texts_are_those_of_single_steps(parts, name, call):
    model, recorder = taped(parts(name))
    assert texts(model, **CALLS[call]) == texts(StepByStep.from_tensors(*parts(name)), **CALLS[call])
    assert recorder.captures and recorder.replays > 5


def test_rows_of_a_batch_may_differ(parts):
    (model, recorder), reference = taped(parts("llama")), StepByStep.from_tensors(*parts("llama"))
    ids, mask = map(torch.as_tensor, prompts())
    call = {"generation_config": [GenerationConfig(**{**ASK, **each}) for each in MIXED], "seed": [3, 3, 4]}
    expected = reference.generate(ids, attention_mask=mask, **call).tolist()
    with PretendedDevices():
        assert model.generate(ids, attention_mask=mask, **call).tolist() == expected
    assert recorder.replays


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3-pattern"])
def test_sixteen_bits_give_the_texts_of_the_loop_that_is_run(parts, name):
    (model, recorder), (other, refused) = (taped(parts(name), dtype="bfloat16") for _ in range(2))
    refused.capture = refusing
    for call in ("ends", "sampled"):
        ask = {**CALLS[call], "max_new_tokens": 12}
        found = texts(model, **ask)
        with pytest.warns(UserWarning, match="no room") if call == "ends" else PretendedDevices():
            assert found == texts(other, **ask)
    assert recorder.replays and not refused.replays


@pytest.mark.parametrize("name", T5)
def test_so_do_models_with_an_encoder(parts, name):
    model, recorder = taped(parts(name), TorchSeq2SeqLM)
    reference = Seq2SeqStepByStep.from_tensors(*parts(name))
    ids, mask = (torch.as_tensor(part) for part in prompts())
    given, ends = {"input_ids": ids % 50 + 3, "attention_mask": mask}, {"max_new_tokens": 70, "eos_token_id": [7, 31]}
    calls = [
        {"do_sample": False, **given},
        {"do_sample": True, "seed": 5, "num_return_sequences": 2, "input_ids": ids[:1, :9] % 40 + 3},
        {"do_sample": False, "input_ids": ids % 50 + 4, "attention_mask": mask},
    ]
    for captured, call in zip((1, 2, 2), calls, strict=True):
        expected = reference.generate(**ends, **call).tolist()
        with PretendedDevices():
            assert model.generate(**ends, **call).tolist() == expected
        assert recorder.captures == captured, "another text of about the length is copied in"


def test_texts_that_were_encoded_apart_share_a_graph(parts):
    model, recorder = taped(parts("t5-1.1"), TorchSeq2SeqLM)
    reference = Seq2SeqStepByStep.from_tensors(*parts("t5-1.1"))
    apart, call = [[5, 6, 7, 8], [9, 10], [11] * 15], {"max_new_tokens": 40, "do_sample": False, "eos_token_id": [7]}
    expected = [one.generated_tokens for one in reference.generate_batch(apart, **call).values()]
    with PretendedDevices():
        assert [one.generated_tokens for one in model.generate_batch(apart, **call).values()] == expected
    assert recorder.replays


@pytest.mark.parametrize("kind", ["quantized", "offloaded"])
def test_a_cache_is_written_by_replays_where_it_is_on_the_device(parts, kind):
    (model, recorder), reference = taped(parts("llama")), StepByStep.from_tensors(*parts("llama"))
    call = {"max_new_tokens": 40, "do_sample": False, "cache_implementation": kind}
    assert texts(model, **call) == texts(reference, **call)
    assert bool(recorder.replays) == (kind == "quantized")


def test_likelihoods_are_kept(parts):
    (model, recorder), reference = taped(parts("llama")), StepByStep.from_tensors(*parts("llama"))
    call = {"output_scores": False, "output_logits": False}
    expected = recorded(REFERENCE, reference, **call)
    with PretendedDevices():
        hold_recorded(recorded(REFERENCE, model, **call), expected)
    assert recorder.replays


def test_what_replays_left_in_the_cache_serves_later_calls(parts):
    (model, recorder), reference = taped(parts("gemma3-pattern")), StepByStep.from_tensors(*parts("gemma3-pattern"))
    ids, call = torch.as_tensor(prompts()[0]), {"max_new_tokens": 30, **ASK}
    with PretendedDevices():
        once = model.generate(ids, max_new_tokens=80, return_dict_in_generate=True, **ASK)
        found = model.generate(once.sequences, **call).tolist()
        again = model.generate(once.sequences, past_key_values=once.past_key_values, **call).tolist()
    assert found == again == reference.generate(torch.tensor(once.sequences.tolist()), **call).tolist()
    assert recorder.replays
