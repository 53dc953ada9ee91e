"""A map from modules to devices becomes a device for each weight, or an error that names what is wrong with it."""

from __future__ import annotations

import pytest

from fabula.errors import ArgumentError, NotSupportedError
from fabula.models.families.config import ModelConfig
from fabula.models.families.table import family_for
from fabula.models.placement.maps import device_map_of, parts_of, places_of
from fabula.models.weights.table import all_entries
from tests.models.configurations import GPT2, SMALL
from tests.models.encoders.cases import SMALL_T5

GPU = {0: "cuda:0", 1: "cuda:1"}


def family(model_type, **values):
    sizes = {"gpt2": GPT2, "t5": SMALL_T5}.get(model_type, SMALL)
    return family_for(ModelConfig(**{**sizes, "model_type": model_type, **values}))


def names(family, *shared):
    return {entry.name for _, entry in all_entries(family)} - set(shared)


LLAMA, GPT, T5 = family("llama"), family("gpt2"), family("t5")
SHARED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")


def test_parts_come_as_they_compute_and_hold_every_weight_once():
    assert [part.modules for part in parts_of(LLAMA)] == [
        ("model.embed_tokens",),
        ("model.layers.0",),
        ("model.layers.1",),
        ("model.norm",),
        ("lm_head",),
    ]
    assert [part.modules for part in parts_of(GPT)][:2] == [
        ("transformer.wte", "transformer.wpe"),
        ("transformer.h.0",),
    ]
    for one in (LLAMA, GPT, T5, family("gemma3_text"), family("qwen3"), family("mistral")):
        weights = [weight for part in parts_of(one) for weight in part.weights]
        assert sorted(weights) == sorted(names(one))
        for part in parts_of(one)[1:]:
            assert all(weight.startswith(f"{module}.") for module in part.modules for weight in part.weights)


def test_the_longest_name_decides():
    asked = {"": "cpu", "model": GPU[0], "model.layers.1": GPU[1]}
    for order in (asked, dict(reversed(asked.items()))):
        places = places_of(LLAMA, names(LLAMA), order)
        assert places["model.embed_tokens.weight"] == places["model.layers.0.mlp.up_proj.weight"] == GPU[0]
        assert places["model.layers.1.mlp.up_proj.weight"] == GPU[1]
        assert places["lm_head.weight"] == "cpu"


def test_a_name_ends_where_a_module_does():
    tall = family("llama", num_hidden_layers=12)
    places = places_of(tall, names(tall), {"": "cpu", "model.layers.1": GPU[0]})
    assert {name.split(".")[2] for name, place in places.items() if place == GPU[0]} == {"1"}


def test_a_map_that_transformers_printed_is_taken_as_it_is():
    printed = {"model.embed_tokens": GPU[0], "model.layers.0": GPU[0], "model.layers.1": GPU[1], "model.norm": GPU[1]}
    places = places_of(LLAMA, names(LLAMA), {**printed, "model.rotary_emb": GPU[1], "lm_head": GPU[1]})
    assert device_map_of(LLAMA, places) == {
        "model.embed_tokens": 0,
        "model.layers.0": 0,
        "model.layers.1": 1,
        "model.norm": 1,
        "lm_head": 1,
    }
    gpt = {"wte": 0, "wpe": 0, "drop": 0, "h.0": 0, "h.1": 1, "ln_f": 1}
    asked = {f"transformer.{name}": GPU[index] for name, index in gpt.items()}
    places = places_of(GPT, names(GPT, "lm_head.weight"), {**asked, "lm_head": GPU[0]})
    assert device_map_of(GPT, places)["transformer.h.1"] == 1
    halves = {"shared": GPU[0], "encoder": GPU[0], "decoder": GPU[1], "lm_head": GPU[0]}
    places = places_of(T5, names(T5, *SHARED), halves)
    assert {name.split(".")[0] for name, place in places.items() if place == GPU[1]} == {"decoder"}


def test_all_together_is_one_entry():
    assert device_map_of(LLAMA, dict.fromkeys(names(LLAMA), "cpu")) == {"": "cpu"}
    assert device_map_of(LLAMA, dict.fromkeys(names(LLAMA), "cuda:1")) == {"": 1}


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"model": GPU[0]}, ArgumentError, "must place every module, and does not place lm_head. Name them"),
        ({"lm_head": GPU[0]}, ArgumentError, "place model.embed_tokens, model.layers.0.input_layernorm, .* others"),
        ({"": "cpu", "model.layer.0": GPU[0]}, ArgumentError, "got 'model.layer.0'. Did you mean 'model.layers.0'"),
        ({"": "cpu", "model.layers.2": GPU[0]}, ArgumentError, "must name modules of the model, got 'model.layers.2'"),
        ({"": "cpu", "rotary": GPU[0]}, ArgumentError, "got 'rotary'"),
        (
            {"": "cpu", "model.layers.0.mlp": GPU[0]},
            NotSupportedError,
            "place model.layers.0 on one device, got cpu, cuda:0. Layers are placed whole",
        ),
    ],
)
def test_what_cannot_be_placed_is_refused_by_name(asked, error, message):
    with pytest.raises(error, match=message):
        places_of(LLAMA, names(LLAMA), asked)


def test_tables_that_are_added_lie_together():
    with pytest.raises(NotSupportedError, match=r"transformer.wte with transformer.wpe on one device, got cpu, cuda:0"):
        places_of(GPT, names(GPT), {"": "cpu", "transformer.wpe": GPU[0]})


def test_a_head_that_shares_the_embeddings_needs_no_place_and_another_one_warns():
    tied = family("llama", tie_word_embeddings=True)
    stored = names(tied, "lm_head.weight")
    places_of(tied, stored, {"model": GPU[0]})
    with pytest.warns(UserWarning, match="lm_head and model.embed_tokens share their weights, which lie on cuda:0"):
        places = places_of(tied, stored, {"model": GPU[0], "lm_head": "cpu"})
    assert "lm_head.weight" not in places
