"""A model takes its own framework's tensors, NumPy's arrays and lists; others are refused by their argument's name."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import fabula
from fabula import ArgumentError
from fabula.models.passes.output import EncoderOutput
from tests.equal.frameworks.doors import REFERENCE

IDS = np.array([[3, 4, 5]], np.int32)
CALL = {"max_new_tokens": 2, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}


def of(framework, values=IDS):
    return import_module(f"fabula.arrays.{framework}").asarray(values, str(values.dtype))


@pytest.fixture
def pairs(door, both):
    """name -> a model in a framework, and the other framework, both ways."""

    def load(name):
        model, reference = both(name)
        return (model, door.arrays, REFERENCE.arrays), (reference, REFERENCE.arrays, door.arrays)

    return load


def test_ids_masks_and_vectors_are_the_models_own(pairs):
    for model, own, other in pairs("llama"):
        foreign, ones = of(other), of(other, np.ones_like(IDS))
        vectors = of(other, np.zeros((1, 3, model.config.hidden_size), np.float32))
        for name, call in {
            "input_ids": {"input_ids": foreign},
            "attention_mask": {"input_ids": of(own), "attention_mask": ones},
            "position_ids": {"input_ids": of(own), "position_ids": foreign},
            "inputs_embeds": {"inputs_embeds": vectors},
        }.items():
            for asked in (model, lambda model=model, **call: model.generate(**call, **CALL)):
                with pytest.raises(ArgumentError, match=f"`{name}` must be a tensor of .*, got a tensor of "):
                    asked(**call)
        guided = {"guidance_scale": 1.5, "negative_prompt_ids": foreign}
        with pytest.raises(ArgumentError, match="`negative_prompt_ids` must be a tensor of"):
            model.generate(of(own), **guided, **CALL)
        with pytest.raises(ArgumentError, match="`input_ids` must be a tensor of"):
            model.generate([foreign[0]], **CALL)


def test_numbers_of_the_host_are_everybodys(pairs):
    for model, own, _ in pairs("llama"):
        expected = np.asarray(model.generate(of(own), **CALL)).tolist()
        assert model.generate(IDS, attention_mask=[[1, 1, 1]], **CALL).tolist() == expected
        assert model.generate(IDS.tolist(), **CALL) == expected
        assert tuple(model(IDS).logits.shape) == (1, 3, model.config.vocab_size)


def test_so_are_an_encoders(pairs):
    for model, own, other in pairs("t5-1.1"):
        output = EncoderOutput(of(other, np.zeros((1, 3, model.config.d_model), np.float32)))
        for name, call in {
            "input_ids": {"input_ids": of(other), "decoder_input_ids": of(own)},
            "attention_mask": {
                "input_ids": of(own),
                "attention_mask": of(other, np.ones_like(IDS)),
                "decoder_input_ids": of(own),
            },
            "decoder_input_ids": {"input_ids": of(own), "decoder_input_ids": of(other)},
            "decoder_attention_mask": {
                "input_ids": of(own),
                "decoder_input_ids": of(own),
                "decoder_attention_mask": of(other, np.ones_like(IDS)),
            },
            "encoder_outputs": {"encoder_outputs": output, "decoder_input_ids": of(own)},
        }.items():
            for asked in (model, lambda model=model, **call: model.generate(**call, **CALL)):
                with pytest.raises(ArgumentError, match=f"`{name}` must be a tensor of .*, got a tensor of "):
                    asked(**call)
        with pytest.raises(ArgumentError, match="`input_ids` must be a tensor of"):
            model.get_encoder()(of(other))


def test_a_model_of_no_framework_takes_each(writing, door):
    model = fabula.AutoModelForCausalLM.from_pretrained(writing("llama").directory, backend="native")
    for framework in ("torch", door.arrays):
        assert type(model.generate(of(framework), **CALL)) is type(of(framework))
