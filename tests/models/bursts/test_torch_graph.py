"""A graph serves all bursts of its shape, and goes with what it points to; what has none is run."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula import CompileConfig  # noqa: E402
from fabula.models.bursts import torch as torch_burst  # noqa: E402  # need torch
from fabula.models.bursts import torch_graph  # noqa: E402  # need torch
from fabula.models.bursts.torch_compiled import Compiled  # noqa: E402  # needs torch
from fabula.models.bursts.torch_inputs import Inputs  # noqa: E402  # needs torch
from fabula.models.encoders.torch import TorchSeq2SeqLM  # noqa: E402  # needs torch
from tests.models.bursts.cases import prompts  # noqa: E402
from tests.models.bursts.taped import (  # noqa: E402  # needs torch
    CALLS,
    refusing,
    taped,
    texts,
    unhurry,
)
from tests.models.bursts.torch_bursts import StepByStep  # noqa: E402  # needs torch
from tests.models.placement.pretended_devices import PretendedDevices  # noqa: E402  # needs torch


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    unhurry(monkeypatch)


@pytest.mark.parametrize("call", ["banned", "sampled", "guided"])
def test_all_that_a_graph_reads_is_held_where_it_is(parts, call):
    model, recorder = taped(parts("gemma3-pattern"))
    texts(model, **CALLS[call])
    model.weights().rotations._tables.clear()  # which are made anew when rows are longer
    (tape,) = recorder.tapes
    assert tape.orphans() == 0


def test_so_is_what_an_encoder_left(parts):
    model, recorder = taped(parts("t5-1.1"), TorchSeq2SeqLM)
    with PretendedDevices():
        model.generate(torch.as_tensor(prompts()[0]) % 50 + 3, max_new_tokens=40, do_sample=False)
    (tape,) = recorder.tapes
    gc.collect()
    assert tape.orphans() == 0


class TestOneGraph:
    """Serves all bursts of its shape: what differs between them is copied into its tensors."""

    def test_a_text_that_grows_over_many_bursts(self, parts):
        model, recorder = taped(parts("llama"))
        call = {"max_new_tokens": 190, "do_sample": False, "repetition_penalty": 1.1, "eos_token_id": None}
        expected = texts(StepByStep.from_tensors(*parts("llama")), rows=1, **call)
        assert texts(model, rows=1, **call) == expected
        assert recorder.captures == 1 and recorder.warm_ups == torch_graph.WARM_UPS
        assert recorder.replays == 189 - recorder.warm_ups, "of all steps but the prompt's"

    def test_other_prompts_seeds_temperatures_and_limits(self, parts):
        model, recorder = taped(parts("qwen2"))
        reference = StepByStep.from_tensors(*parts("qwen2"))
        one = {"do_sample": True, "top_k": 20, "top_p": 0.9, "temperature": 0.7, "repetition_penalty": 1.2, "seed": 1}
        calls = [
            {},
            {"seed": 2},
            {"temperature": 1.4, "top_k": 60, "top_p": 0.5, "repetition_penalty": 1.5},
            {"max_new_tokens": 33, "eos_token_id": 5},
            {"input_ids": torch.as_tensor(prompts()[0][:1, 20:] + 3)},
            {"input_ids": torch.arange(3, 70)[None]},
            {},
        ]
        ids = torch.as_tensor(prompts()[0][:1])
        for change in calls:
            call = {"input_ids": ids, "max_new_tokens": 60, "pad_token_id": 0, "eos_token_id": 77, **one, **change}
            expected = reference.generate(**call).tolist()
            with PretendedDevices():
                assert model.generate(**call).tolist() == expected, change
        assert recorder.captures == 1

    def test_other_rows_or_processors_are_another_graph(self, parts):
        model, recorder = taped(parts("gpt2"))
        reference = StepByStep.from_tensors(*parts("gpt2"))
        calls = [({}, 1), ({"rows": 2}, 2), ({"rows": 1, "top_k": 5, "do_sample": True, "seed": 1}, 3), ({}, 3)]
        for change, captures in calls:
            call = {"rows": 1, "max_new_tokens": 40, **change}
            assert texts(model, **call) == texts(reference, **call)
            assert recorder.captures == captures

    def test_a_cache_that_has_grown_is_captured_anew_and_the_old_graph_goes(self, parts):
        model, recorder = taped(parts("llama"))
        reference = StepByStep.from_tensors(*parts("llama"))
        call = {"rows": 1, "max_new_tokens": 40, "do_sample": False}
        assert texts(model, **call) == texts(reference, **call)
        with PretendedDevices(), model.engine.alone():
            model.engine.reserve(model.engine.pool.blocks + 8)
        assert texts(model, **call) == texts(reference, **call)
        assert recorder.captures == 2 and len(recorder.tapes) == 1

    def test_other_weights_are_captured_anew_and_changed_ones_are_seen(self, parts):
        model, recorder = taped(parts("llama"))
        reference = StepByStep.from_tensors(*parts("llama"))
        call = {"rows": 1, "max_new_tokens": 30, "do_sample": False}
        assert texts(model, **call) == texts(reference, **call)
        for captures in (1, 2):
            with torch.no_grad(), PretendedDevices():
                for each in (model, reference):
                    each.lm_head.weight.mul_(-1.0)
                if captures == 2:
                    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone(), requires_grad=False)
            assert texts(model, **call) == texts(reference, **call)
            assert recorder.captures == captures

    def test_goes_with_its_cache_and_its_model(self, parts):
        model, recorder = taped(parts("llama"))
        texts(model, rows=1, max_new_tokens=20)
        cache = weakref.ref(model.engine.storage)
        assert len(recorder.tapes) == 1
        model._engine = None
        gc.collect()
        assert cache() is None and not recorder.tapes
        texts(model, rows=1, max_new_tokens=20)
        assert len(recorder.tapes) == 1
        del model
        gc.collect()
        assert not recorder.tapes

    def test_the_one_longest_unused_goes_where_there_are_many(self, parts, monkeypatch):
        monkeypatch.setattr(torch_graph, "MOST", 2)
        model, recorder = taped(parts("llama"))
        for rows, captures in ((1, 1), (2, 2), (1, 2), (3, 3), (1, 3), (2, 4)):
            texts(model, rows=rows, max_new_tokens=20)
            assert recorder.captures == captures and len(recorder.tapes) <= 2

    def test_a_few_steps_are_not_worth_one(self, parts):
        model, recorder = taped(parts("llama"))
        texts(model, max_new_tokens=torch_graph.WORTH)
        assert not recorder.captures
        texts(model, max_new_tokens=torch_graph.WORTH + 1)
        assert recorder.captures == 1
        replays = recorder.replays
        texts(model, max_new_tokens=4)
        assert recorder.replays > replays, "what is there serves few steps too"

    def test_is_not_there_for_what_torch_compiles(self, parts, monkeypatch):
        model, recorder = taped(parts("llama"))
        monkeypatch.setattr(Compiled, "forward", lambda compiled, frame, asked: frame.forward)
        call = {"max_new_tokens": 20, "do_sample": False}
        assert texts(model, compile_config=CompileConfig(), **call) == texts(model, **call)
        assert recorder.captures == 1 and recorder.warm_ups == torch_graph.WARM_UPS, "of the second call"

    def test_threads_share_it(self, parts):
        """One engine's steps are replayed by whichever thread steps; another engine has graphs of its own."""
        model, recorder = taped(parts("llama"))
        reference = StepByStep.from_tensors(*parts("llama"))
        asked = [
            {"rows": rows, "max_new_tokens": 40, "do_sample": True, "top_k": 20, "seed": seed, **kind}
            for seed, (rows, kind) in enumerate([(1, {}), (2, {}), (1, {"cache_implementation": "quantized"})] * 2)
        ]
        expected, found = [texts(reference, **call) for call in asked], {}

        def ask(place):
            found[place] = texts(model, **asked[place])

        with PretendedDevices():
            threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(asked))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert [found.get(place) for place in range(len(asked))] == expected
        assert recorder.replays


class TestRefusal:
    """What cannot be captured is run, with one warning and the same text."""

    def test_a_capture_that_fails_was_the_last(self, parts):
        model, recorder = taped(parts("llama"))
        reference = StepByStep.from_tensors(*parts("llama"))
        recorder.capture = refusing
        with pytest.warns(UserWarning, match="no CUDA graph of one can be captured: there is no room"):
            assert texts(model, **CALLS["ends"]) == texts(reference, **CALLS["ends"])
        recorder.capture = None  # which nobody asks
        for call in (CALLS["ends"], CALLS["sampled"]):
            assert texts(model, **call) == texts(reference, **call)

    @pytest.mark.parametrize("obstacle", ["waits", "sends"])
    def test_what_waits_for_the_device_or_sends_other_numbers_is_not_tried(self, parts, monkeypatch, obstacle):
        model, recorder = taped(parts("llama"))
        reference = StepByStep.from_tensors(*parts("llama"))
        forward, steps = torch_burst.Frame.forward, []

        def hindered(frame, last, position, state):
            steps.append(0)
            if obstacle == "waits":
                position[0].item()
            elif frame.weights.home.type != "cpu":
                position = position + torch.tensor([len(steps)]).to(position.device) * 0
            return forward(frame, last, position, state)

        monkeypatch.setattr(torch_burst.Frame, "forward", hindered)
        reason = "waits for the device" if obstacle == "waits" else "other numbers at each step"
        with pytest.warns(UserWarning, match=reason) as warned:
            assert texts(model, **CALLS["plain"]) == texts(reference, **CALLS["plain"])
            assert texts(model, **CALLS["plain"]) == texts(reference, **CALLS["plain"])
        assert len(warned) == 1 and not recorder.captures


def test_a_choice_frozen_at_the_capture_is_a_wrong_text(parts, monkeypatch):
    """A mistake in the loop is seen: here the keys of draws, which are made before the step, stay the first's."""
    model, _ = taped(parts("llama"))
    reference = StepByStep.from_tensors(*parts("llama"))
    copy = torch_graph._copy

    def forgetful(places, values):
        keys = places.packed[0].narrow(0, -2, 2) if isinstance(places, Inputs) else None
        first = None if keys is None else keys.clone()
        copy(places, values)
        if keys is not None:
            keys.copy_(first)

    monkeypatch.setattr(torch_graph, "_copy", forgetful)
    calls = [{"rows": 1, "max_new_tokens": 30, "do_sample": True, "top_k": 0, "seed": seed} for seed in (1, 2)]
    found, expected = ([texts(each, **call) for call in calls] for each in (model, reference))
    assert found[0] == expected[0] and found[1] != expected[1]


def test_no_step_draws_from_the_generator_of_torch(parts):
    model, _ = taped(parts("llama"))
    with PretendedDevices():
        torch.manual_seed(5)
        before = torch.get_rng_state()
    texts(model, **CALLS["sampled"])
    assert torch.equal(torch.get_rng_state(), before)
