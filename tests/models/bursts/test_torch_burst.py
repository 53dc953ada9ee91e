"""Bursts in PyTorch give the texts of single steps, and nothing within one waits for the device."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula import GenerationConfig  # noqa: E402
from fabula.arrays import torch as functions  # noqa: E402  # needs torch
from fabula.decoding.closed.loop import decode  # noqa: E402
from fabula.decoding.closed.rows import ClosedRow, close  # noqa: E402
from fabula.decoding.recipe import Limits, Recipe  # noqa: E402
from fabula.engine.engine import Engine  # noqa: E402
from fabula.models.bursts import torch as torch_burst  # noqa: E402  # needs torch
from fabula.models.torch import TorchCausalLM  # noqa: E402  # needs torch
from fabula.ops.protocol import Batch  # noqa: E402
from tests.engine.test_burst import request, run  # noqa: E402
from tests.equal.frameworks.doors import REFERENCE  # noqa: E402
from tests.models.bursts.cases import ASK, CONTRASTED, GUIDED, PLAIN, SAMPLED, hold_recorded, prompts, recorded  # noqa: E402
from tests.models.bursts.torch_bursts import (  # noqa: E402  # needs torch
    InBursts,
    StepByStep,
    Unwaited,
    both,
    every_processor,
    hold_later_calls,
    never_looking,
    unwaited_asarray,
)
from tests.models.configurations import FIRST, read_parts  # noqa: E402

WINDOWS = ("mistral-window-of-blocks", "gemma3-pattern")
CALLS = {
    "plain": PLAIN,
    "sampled": SAMPLED,
    "n-grams": {"max_new_tokens": 40, "do_sample": False, "no_repeat_ngram_size": 2, "min_new_tokens": 9},
    "guided": GUIDED,
    "contrasted": CONTRASTED,
    "both": {**GUIDED, "negative_prompt_ids": None, "dola_layers": [0], "do_sample": False},
    "ends": {"max_new_tokens": 70, "do_sample": True, "top_k": 0, "seed": 2, "eos_token_id": list(range(0, 101, 9))},
}
MIXED = [  # of three rows
    {"do_sample": False, "max_new_tokens": 7, "repetition_penalty": 1.3},
    {"do_sample": True, "max_new_tokens": 50, "top_k": 5, "temperature": 0.7, "no_repeat_ngram_size": 3},
    {"do_sample": True, "max_new_tokens": 30, "top_k": 40, "typical_p": 0.9, "bad_words_ids": [[5], [6, 7]]},
]


def texts(model, **call):
    """What the model makes of three prompts of different lengths."""
    ids, mask = (torch.as_tensor(part).to(model.device) for part in prompts())
    return model.generate(ids, attention_mask=mask, **{**ASK, **call}).tolist()


@pytest.mark.parametrize(
    ("name", "call"),
    [
        *((name, call) for name in (*(case.name for case in FIRST), *WINDOWS) for call in ("plain", "sampled")),
        *(
            (name, call)
            for name in ("llama", "gemma3-pattern")
            for call in ("n-grams", "ends", "guided", "contrasted", "both")
        ),
    ],
)
def test_texts_are_those_of_single_steps(writing, name, call):
    model, reference = both(writing(name))
    assert texts(model, **CALLS[call]) == texts(reference, **CALLS[call])
    assert model.bursts


@pytest.mark.parametrize("ahead", [1, 3])
@pytest.mark.parametrize("kernels", [True, False])
def test_rows_of_a_batch_may_differ(writing, monkeypatch, kernels, ahead):
    monkeypatch.setattr(torch_burst, "steered", lambda *loop, **known: STEERED(*loop, **{**known, "ahead": ahead}))
    model, reference = both(writing("llama"))
    if not kernels:
        monkeypatch.setattr(InBursts, "sampler", None)
        monkeypatch.setattr(StepByStep, "sampler", None)
    ids, mask = map(torch.as_tensor, prompts())
    for some in (MIXED, [{**each, "no_repeat_ngram_size": None, "typical_p": None} for each in MIXED]):
        configs = [GenerationConfig(**{**ASK, **each}) for each in some]
        call = {"attention_mask": mask, "generation_config": configs, "seed": [3, 3, 4]}
        assert model.generate(ids, **call).tolist() == reference.generate(ids, **call).tolist()
    assert max(map(max, model.bursts)) > 1


def test_likelihoods_go_on_in_bursts_and_what_is_large_step_by_step(writing):
    model, reference = both(writing("llama"))
    call = {"output_scores": False, "output_logits": False}
    hold_recorded(recorded(REFERENCE, model, **call), recorded(REFERENCE, reference, **call))
    assert model.bursts
    model.bursts.clear()
    recorded(REFERENCE, model)
    assert not model.bursts


def test_what_a_burst_left_in_the_cache_serves_later_calls(writing):
    hold_later_calls(*both(writing("gemma3-pattern")), **PLAIN)


def test_a_call_in_inference_mode_leaves_nothing_that_others_cannot_use(writing):
    """Neither a later call, which writes the same cache, nor training, which reads the same angles."""
    model, reference = both(writing("llama"))
    call = {"max_new_tokens": 20, "do_sample": False}
    with torch.inference_mode():
        texts(model, **call)
    assert texts(model, **call) == texts(reference, **call)
    ids = torch.as_tensor(prompts()[0]).long()
    model(ids, labels=ids).loss.backward()
    assert model.lm_head.weight.grad.abs().max() > 0


def test_what_an_earlier_owner_left_in_a_block_is_not_seen(writing, monkeypatch):
    monkeypatch.setattr(torch_burst, "LONG", 60.0)
    model, reference = both(writing("mistral-window-of-blocks"))
    found = []
    for each in (model, reference):
        engine, one = Engine(each, max_positions=4096), request([1, 2, 3], new=130)
        for stored in (*engine.storage.keys, *engine.storage.values):
            stored.fill_(torch.inf)
        engine.run([one])
        found.append(one.sink.everything)
    assert found[0] == found[1]
    assert model.bursts == [[64], [64]]


def test_time_ends_a_burst_and_changes_no_text(writing, monkeypatch):
    monkeypatch.setattr(torch_burst, "LONG", 0.0)
    model, reference = both(writing("llama"))
    assert texts(model, **SAMPLED) == texts(reference, **SAMPLED)
    assert all(count <= 1 for burst in model.bursts for count in burst)


def test_rows_that_wait_for_a_place_get_it_when_one_ends(writing):
    model, reference = both(writing("gpt2"))
    found = []
    for each in (model, reference):
        requests = [request([1, 2], new=30), request([3, 4], new=8), request([5, 6], new=8)]
        run(each, requests, max_rows=2)
        found.append([one.sink.everything for one in requests])
    assert found[0] == found[1]
    assert model.bursts[0] == [7, 7], "the first two go on until one of them ends"


@pytest.mark.parametrize("kind", ["quantized", "offloaded"])
def test_other_caches_go_on_in_bursts_too(writing, kind):
    model, reference = both(writing("llama"))
    call = {"max_new_tokens": 40, "do_sample": False, "cache_implementation": kind}
    assert texts(model, **call) == texts(reference, **call)
    assert model.bursts


@pytest.mark.parametrize(
    ("name", "call"),
    [*((case.name, PLAIN) for case in FIRST), ("llama", {**GUIDED, "do_sample": False}), ("llama", CONTRASTED)],
)
def test_no_step_of_a_burst_asks_for_a_number(writing, monkeypatch, name, call):
    """Nobody looks at the rows, so that some stay as they are for many steps after their end."""

    class Watched(InBursts):
        sampler = None

        def burst(self, *arguments):
            with Unwaited():
                return super().burst(*arguments)

    monkeypatch.setattr(torch_burst, "noted", lambda flag: lambda: True)
    monkeypatch.setattr(torch_burst, "LONG", 60.0)
    model, reference = both(writing(name))
    model.__class__ = Watched
    call = {**call, "eos_token_id": list(range(0, 101, 20))}
    assert texts(model, **call) == texts(reference, **call)
    assert model.bursts


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", ["llama", "gemma3-pattern"])
def test_a_device_that_has_no_numbers_runs_a_burst(writing, monkeypatch, name, mixed):
    """Tensors of the device "meta" have shapes and no content: whatever looks at one raises, in every processor."""
    model = TorchCausalLM.from_tensors(*read_parts(writing(name).directory), device="meta")
    chain, other = every_processor(1), every_processor(2)
    rows = [
        ClosedRow(np.arange(first + 1, dtype=np.int32), 3, 0, 20, 7, place, Recipe(list(own), Limits(60), True))
        for place, (first, own) in enumerate([(5, chain), (40, other if mixed else chain)])
    ]
    closed = close(rows)
    assert closed is not None, "a processor of the list does not go on by itself"
    form, host = closed
    ones = np.ones(2, np.int32)
    batch = Batch(ones, np.arange(3), np.array([5, 40], np.int32), np.array([[0, 0], [1, 2]], np.int32), ones)
    frame = torch_burst.frame_of(model.family, model.weights(), batch, model.new_cache(4), host.room)
    there = torch_burst.moved(host, model.inputs_like)
    frame.forward(there.last, there.lengths - 1, None)  # what a model makes once, for all steps
    monkeypatch.setattr(functions, "asarray", unwaited_asarray)
    with torch.no_grad(), Unwaited():
        end = decode(frame.forward, None, form, there, loop=never_looking)
    assert end.tokens.shape == host.tokens.shape and end.lengths.shape == (2,) and end.tokens.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("call", [PLAIN, SAMPLED, CALLS["n-grams"]])
@pytest.mark.parametrize("name", [*(case.name for case in FIRST), *WINDOWS])
def test_a_gpu_gives_the_texts_of_a_cpu_and_is_never_waited_for(writing, monkeypatch, name, call):
    def unwaited(*arguments, **settings):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return DECODE(*arguments, **settings)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(torch_burst, "decode", unwaited)
    model, reference = both(writing(name))
    assert texts(model.cuda(), **call) == texts(reference, **call)
    assert model.bursts


DECODE, STEERED = torch_burst.decode, torch_burst.steered
