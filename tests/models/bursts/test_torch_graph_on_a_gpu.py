"""Real CUDA graphs: what is replayed, what is launched and what a CPU computes are the same texts."""

from __future__ import annotations

import gc

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula.models.bursts.torch_capture import CudaRecorder  # noqa: E402  # needs torch
from fabula.models.bursts.torch_graph import Graphs  # noqa: E402  # needs torch
from fabula.models.encoders.torch import TorchSeq2SeqLM  # noqa: E402  # needs torch
from fabula.models.torch import TorchCausalLM  # noqa: E402  # needs torch
from tests.models.bursts.cases import ASK, prompts  # noqa: E402
from tests.models.bursts.taped import (  # noqa: E402  # needs torch
    CALLS,
    NAMES,
    SEARCHES,
    T5,
    Seq2SeqStepByStep,
    refusing,
)
from tests.models.bursts.torch_bursts import StepByStep  # noqa: E402  # needs torch


class CountedGraphs(CudaRecorder):
    """Real graphs; each replay raises where it would wait for the device."""

    replays = 0

    def capture(self, step):
        replay = super().capture(step)

        def unwaited():
            self.replays += 1
            torch.cuda.set_sync_debug_mode("error")
            try:
                replay()
            finally:
                torch.cuda.set_sync_debug_mode("default")

        return unwaited


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestReal:
    """On a GPU the graph, the loop that is launched, and a CPU give the same."""

    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize("name", NAMES)
    def test_texts_are_those_of_a_cpu(self, parts, name, call):
        model, recorder = on_a_gpu(parts(name))
        reference = StepByStep.from_tensors(*parts(name))
        for seed in (5, 6):
            ask = {**CALLS[call], **({"seed": seed} if CALLS[call].get("do_sample") else {})}
            assert texts_there(model, **ask) == texts_there(reference, **ask)
        assert recorder.replays > 5

    @pytest.mark.parametrize("name", T5)
    def test_so_do_models_with_an_encoder(self, parts, name):
        model, recorder = on_a_gpu(parts(name), TorchSeq2SeqLM)
        reference = Seq2SeqStepByStep.from_tensors(*parts(name))
        ids, mask = (torch.as_tensor(part) for part in prompts())
        for more in (3, 4):
            call = {"max_new_tokens": 70, "eos_token_id": [7, 31], "do_sample": False}
            found = model.generate((ids % 50 + more).cuda(), attention_mask=mask.cuda(), **call).tolist()
            assert found == reference.generate(ids % 50 + more, attention_mask=mask, **call).tolist()
        assert recorder.replays > 5

    @pytest.mark.parametrize("call", ["plain", "sampled"])
    def test_sixteen_bits_give_the_texts_of_the_loop_that_is_launched(self, parts, call):
        (model, recorder), (other, refused) = (on_a_gpu(parts("llama"), dtype="bfloat16") for _ in range(2))
        refused.capture = refusing
        with pytest.warns(UserWarning, match="no room"):
            expected = texts_there(other, **CALLS[call])
        assert texts_there(model, **CALLS[call]) == expected
        assert recorder.replays > 5

    @pytest.mark.parametrize("call", SEARCHES)
    def test_searches_are_those_of_a_cpu(self, parts, call):
        model, recorder = on_a_gpu(parts("gemma3-pattern"))
        reference = StepByStep.from_tensors(*parts("gemma3-pattern"))
        assert found_there(model, **SEARCHES[call]) == found_there(reference, **SEARCHES[call])
        assert recorder.replays > 5

    def test_a_graph_serves_calls_in_inference_mode_and_outside(self, parts):
        model, recorder = on_a_gpu(parts("llama"))
        with torch.inference_mode():
            found = texts_there(model, **CALLS["plain"])
        replays = recorder.replays
        assert texts_there(model, **CALLS["plain"]) == found
        assert recorder.replays > replays > 0

    def test_memory_comes_back_with_the_model(self, parts):
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        model, _ = on_a_gpu(parts("llama"))
        texts_there(model, **CALLS["sampled"])
        del model
        gc.collect()
        assert torch.cuda.memory_allocated() <= before + (32 << 20), "but for the workspace of products"


def on_a_gpu(parts, kind=TorchCausalLM, **settings):
    recorder = CountedGraphs(torch.device("cuda", torch.cuda.current_device()))
    model = kind.from_tensors(*parts, device="cuda", **settings).requires_grad_(False)
    model._graphs = Graphs(lambda device: recorder)
    return model, recorder


def texts_there(model, **call):
    ids, mask = (torch.as_tensor(part).to(model.device) for part in prompts())
    return model.generate(ids, attention_mask=mask, **{**ASK, **call}).tolist()


def found_there(model, **call):
    ids, mask = (torch.as_tensor(part).to(model.device) for part in prompts())
    found = model.generate(ids, attention_mask=mask, return_dict_in_generate=True, **{**ASK, **call})
    return found.sequences.tolist(), found.beam_indices.tolist()
