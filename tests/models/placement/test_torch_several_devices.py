"""A PyTorch model over several devices computes what one device computes, and never mixes them.

The GPUs are pretended, so that this runs anywhere; where there are real ones, these are tried too.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula import AutoModelForCausalLM  # noqa: E402
from fabula.models.bursts import torch as torch_burst  # noqa: E402  # needs torch
from fabula.models.encoders.torch import TorchSeq2SeqLM  # noqa: E402  # needs torch
from fabula.models.placement.maps import parts_of, places_of  # noqa: E402
from fabula.models.torch import TorchCausalLM  # noqa: E402  # needs torch
from fabula.models.weights.table import stored_names  # noqa: E402
from fabula.testing.tiny_model import write_tiny_model  # noqa: E402
from tests.models.bursts.cases import ASK, SAMPLED, prompts  # noqa: E402
from tests.models.configurations import FIRST, read_parts  # noqa: E402
from tests.models.placement.pretended_devices import Elsewhere, PretendedDevices  # noqa: E402  # needs torch

NAMES = (*(case.name for case in FIRST), "llama-tied", "gemma3-pattern", "mistral-window-of-blocks")
AROUND = ("cuda:0", "cuda:1", "cpu")  # of the parts, one after the other


@pytest.fixture
def unnoted(monkeypatch):
    """What a real GPU would note is looked at at once."""
    monkeypatch.setattr(torch_burst, "noted", lambda flag: lambda: bool(flag.item()))


def around(parts, devices=AROUND, shift=0):
    """A map that places each part of the model on the device after that of the part before."""
    family, tensors = parts
    names = stored_names(family, tensors)
    placed = {
        module: devices[(place + shift) % len(devices)]
        for place, part in enumerate(parts_of(family))
        for module in part.modules
    }
    return places_of(family, names, placed)


def both(written, devices=AROUND, shift=0, kind=TorchCausalLM):
    """A model on several devices, and the same on one."""
    parts = read_parts(written.directory)
    with PretendedDevices() if devices == AROUND else nullcontext():
        model = kind.from_tensors(*parts, device=around(parts, devices, shift)).requires_grad_(False)
    return model, kind.from_tensors(*parts)


def texts(model, **call):
    """The model's, of prompts whose blocks end within the new tokens."""
    ids, mask = map(torch.as_tensor, prompts())
    return model.generate(ids, attention_mask=mask, **{**ASK, **call, "max_new_tokens": 16}).tolist()


def same_texts(model, reference, **call):
    expected = texts(reference, **call)
    with PretendedDevices():
        assert texts(model, **call) == expected


@pytest.mark.filterwarnings("ignore:.* share their weights")
@pytest.mark.usefixtures("unnoted")
class TestPretended:
    @pytest.mark.parametrize("name", NAMES)
    def test_texts_are_those_of_one_device(self, writing, name):
        for shift, call in enumerate(({}, SAMPLED, {"num_beams": 2})):
            same_texts(*both(writing(name), shift=shift), **call)

    @pytest.mark.parametrize(
        "call",
        [
            {"cache_implementation": "quantized", "cache_config": {"nbits": 4}},
            {"cache_implementation": "offloaded"},
            {"cache_implementation": "static"},
            {"dola_layers": "high", "repetition_penalty": 1.2},
            {"penalty_alpha": 0.6, "top_k": 4},
            {"assistant_early_exit": 1},
            {"prompt_lookup_num_tokens": 3},
            {"guidance_scale": 1.5, "use_cache": False},
        ],
        ids=lambda call: next(iter(call)),
    )
    def test_so_are_those_of_every_cache_and_strategy(self, writing, call):
        for shift in (0, 1) if "cache_implementation" in call else (1,):
            same_texts(*both(writing("gemma3-pattern"), shift=shift), **call)

    def test_each_layers_blocks_are_where_it_computes(self, writing):
        model, _ = both(writing("gemma3-pattern"))
        assert model.hf_device_map == {
            "model.embed_tokens": 0,
            "model.layers.0": 1,
            "model.layers.1": "cpu",
            "model.layers.2": 0,
            "model.norm": 1,
            "lm_head": 0,
        }
        with PretendedDevices():
            cache = model.new_cache(3)
        for stored in (cache.keys, cache.values):
            assert [str(tensor.device) for tensor in stored] == ["cuda:1", "cpu", "cuda:0"]
        assert {type(stored) for stored in cache.keys} == {Elsewhere, torch.Tensor}

    @pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3-pattern"])
    def test_a_call_of_the_model_gives_what_it_gives_on_one_device(self, writing, name):
        model, reference = both(writing(name))
        ids, mask = map(torch.as_tensor, prompts())
        for given in (
            {"input_ids": ids, "attention_mask": mask},
            {"input_ids": ids, "labels": ids.long(), "output_hidden_states": True, "output_attentions": True},
            {"inputs_embeds": torch.randn(2, 9, reference.config.hidden_size)},
        ):
            with torch.no_grad():
                expected = reference(**given)
                with PretendedDevices():
                    found = model(**given)
            for one, other in zip(flat(found), flat(expected), strict=True):
                assert one.device == model.device
                assert torch.allclose(here(one), other, atol=1e-5)

    def test_a_past_goes_on_and_is_read(self, writing):
        ids, _ = map(torch.as_tensor, prompts())

        @torch.no_grad()
        def calls(model):
            past = model(ids[:, :40], use_cache=True).past_key_values
            logits = model(ids[:, 40:], past_key_values=past).logits
            call = {"max_new_tokens": 3, **ASK}
            kept = model.generate(ids, return_dict_in_generate=True, **call).past_key_values
            more = model.generate(torch.cat([ids, ids[:, :1]], 1), past_key_values=past, **call)
            return [logits, more, *(part for layer in kept.to_dense() for part in layer)]

        model, reference = both(writing("llama"))
        expected = calls(reference)
        with PretendedDevices():
            found = calls(model)
        assert all(torch.allclose(here(one), other, atol=1e-5) for one, other in zip(found, expected, strict=True))

    @pytest.mark.parametrize("name", ["t5-1.0", "t5-1.1", "t5-few-buckets"])
    def test_an_encoder_may_be_elsewhere_than_its_decoder(self, writing, name):
        ids, mask = (torch.as_tensor(part) for part in prompts())
        ids = ids % 50 + 3
        given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids[:, :7], "output_attentions": True}

        @torch.no_grad()
        def calls(model):
            texts = [
                model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, num_beams=beams)
                for beams in (1, 2)
            ]
            return [*texts, *flat(model(**given, output_hidden_states=True))]

        for shift in (0, 1):
            model, reference = both(writing(name), shift=shift, kind=TorchSeq2SeqLM)
            expected = calls(reference)
            with PretendedDevices():
                found = calls(model)
            assert all(torch.allclose(here(one), other, atol=1e-5) for one, other in zip(found, expected, strict=True))

    def test_what_is_pretended_raises_where_devices_meet(self, writing, monkeypatch):
        model, _ = both(writing("llama"))
        monkeypatch.setattr("fabula.models.passes.torch.Weights.arrive", None)
        with PretendedDevices(), pytest.raises(RuntimeError, match="got tensors on"):
            model(torch.tensor([[1, 2, 3]]))

    def test_moving_a_model_brings_all_of_it_together(self, writing):
        model, reference = both(writing("llama"))
        same_texts(model, reference)
        with PretendedDevices():
            model.to("cpu")
        assert model.hf_device_map == {"": "cpu"}
        same_texts(model, reference)


def here(tensor):
    return tensor.held if isinstance(tensor, Elsewhere) else tensor


def flat(output):
    """The tensors of an output, in their order."""
    for value in output.to_tuple():
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple):
            yield from value


def test_a_map_onto_the_cpu_alone_is_the_model_without_one(tmp_path):
    folder = write_tiny_model(tmp_path / "tiny")
    asked = {"model.embed_tokens": "cpu", "model.layers": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
    model = AutoModelForCausalLM.from_pretrained(folder, backend="torch", device_map=asked)
    reference = AutoModelForCausalLM.from_pretrained(folder, backend="torch")
    assert model.hf_device_map == {"": "cpu"}
    for name, weight in reference.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)
    call = {"max_new_tokens": 20, "eos_token_id": None}
    assert model.generate([[72, 101]], **call) == reference.generate([[72, 101]], **call)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_gpus_and_the_cpu_together_give_the_texts_of_the_cpu(writing, name):
    devices = [*(f"cuda:{index}" for index in range(torch.cuda.device_count())), "cpu"]
    for shift, call in enumerate(({}, SAMPLED)):
        model, reference = both(writing(name), devices, shift)
        assert texts(model, **call) == texts(reference, **call)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("how", ["auto", "balanced_low_0", "sequential"])
def test_free_memory_decides_where_layers_go(tmp_path, how):
    folder = write_tiny_model(tmp_path / "tiny")
    reference = AutoModelForCausalLM.from_pretrained(folder, backend="torch")
    call = {"max_new_tokens": 20, "eos_token_id": None}
    whole = AutoModelForCausalLM.from_pretrained(folder, device_map=how)
    assert whole.device.type == "cuda"
    assert whole.generate([[72, 101]], **call) == reference.generate([[72, 101]], **call)
    some = AutoModelForCausalLM.from_pretrained(folder, device_map=how, max_memory={0: "250KB", "cpu": "1GB"})
    assert set(some.hf_device_map.values()) == {0, "cpu"}
    assert some.generate([[72, 101]], **call) == reference.generate([[72, 101]], **call)
