"""What a call asks for: precedence, unknown names, ranges, and what is not done yet."""

import copy
import logging
import math
from types import SimpleNamespace

import pytest

from fabula.errors import ArgumentError, NotSupportedError, UnknownArgumentError
from fabula.generation.settings.config import GenerationConfig
from fabula.generation.settings.fields import FIELDS
from fabula.generation.settings.rules import MODEL_INPUTS, SUPPORTED, check_supported, merge, resolve

LOG = "fabula.generation"
LENGTHS = ("max_length", "min_length")  # stay None where nobody set them, until the prompt is known


def resolved(call=None, given=None, model=None):
    return resolve(call or {}, given, model or GenerationConfig())[0]


class TestPrecedence:
    def test_a_call_goes_before_the_config_passed_before_the_models_before_defaults(self):
        model = GenerationConfig(do_sample=True, top_k=1, top_p=0.1, temperature=0.1)
        given = GenerationConfig(do_sample=True, top_k=2, top_p=0.2)
        config = resolved({"top_k": 3}, given, model)
        assert (config.top_k, config.top_p, config.temperature, config.num_beams) == (3, 0.2, 0.1, 1)

    def test_a_none_in_a_passed_config_does_not_unset(self):
        assert resolved({}, GenerationConfig(top_k=None), GenerationConfig(do_sample=True, top_k=3)).top_k == 3

    def test_a_none_in_the_call_unsets(self):
        model = GenerationConfig(do_sample=True, top_k=3, top_p=0.5, eos_token_id=2, temperature=0.5, num_beams=2)
        call = dict.fromkeys(["top_k", "top_p", "eos_token_id", "temperature", "num_beams", "max_length"])
        config = resolved(call, None, model)
        assert (config.top_k, config.eos_token_id, config.max_length) == (None, None, None)
        assert (config.top_p, config.temperature, config.num_beams) == (1.0, 1.0, 1)

    def test_the_default_top_k_of_sampling_is_fifty(self):
        assert resolved({"do_sample": True}).top_k == 50

    def test_nothing_given_is_changed_or_shared(self):
        model = GenerationConfig(eos_token_id=[1, 2], foo=[3])
        given = GenerationConfig(bad_words_ids=[[1]])
        call = {"stop_strings": ["a"]}
        before = copy.deepcopy((model.to_dict(), given.to_dict(), call))
        config = resolved(call, given, model)
        for value in (config.eos_token_id, config.foo, config.bad_words_ids, config.stop_strings):
            value.append(9)
        assert (model.to_dict(), given.to_dict(), call) == before

    def test_extra_attributes_are_carried_over_and_can_be_set(self):
        model, given = GenerationConfig(foo=1, bar=2), GenerationConfig(bar=3)
        config, leftover = resolve({"foo": 4}, given, model)
        assert (config.foo, config.bar, leftover) == (4, 3, {})

    def test_a_watermark_may_be_a_dict(self):
        assert resolved({"watermarking_config": {"bias": 1.0}}).watermarking_config.bias == 1.0

    def test_an_old_files_static_cache_is_no_wish(self):
        model = GenerationConfig(cache_implementation="hybrid")
        assert resolved({}, None, model).cache_implementation is None
        asked = resolved({"cache_implementation": "hybrid"}, None, model)
        check_supported(asked)
        assert asked.cache_implementation == "hybrid"

    def test_merge_says_where_each_value_came_from(self):
        settings = merge({"top_k": None}, GenerationConfig(seed=1), GenerationConfig(pad_token_id=0))
        sources = {name: setting.source for name, setting in settings.items() if setting.source != "default"}
        assert sources == {"top_k": "call", "seed": "generation_config", "pad_token_id": "model"}


class TestNames:
    def test_model_inputs_are_left_over(self):
        call = dict.fromkeys(MODEL_INPUTS, 1)
        assert resolve({**call, "top_k": 3, "do_sample": True}, None, GenerationConfig())[1] == call

    @pytest.mark.parametrize(
        ("slip", "meant"),
        [("temprature", "temperature"), ("max_tokens", "max_new_tokens"), ("attention_masks", "attention_mask")],
    )
    def test_an_unknown_one_is_refused_with_the_nearest(self, slip, meant):
        with pytest.raises(UnknownArgumentError, match=f"`{slip}` must be .* Did you mean `{meant}`"):
            resolved({slip: 1})

    def test_one_like_no_other_is_refused_too(self):
        with pytest.raises(UnknownArgumentError, match=r"`qqq` .* See GenerationConfig"):
            resolved({"qqq": None})

    def test_private_attributes_cannot_be_set(self):
        with pytest.raises(UnknownArgumentError):
            resolved({"_said": set()})


class TestRanges:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("temperature", -1),
            ("temperature", math.nan),
            ("temperature", "hot"),
            ("temperature", True),
            ("top_k", -1),
            ("top_k", 1.5),
            ("top_p", 1.5),
            ("top_p", -0.1),
            ("min_p", 2),
            ("typical_p", 0),
            ("epsilon_cutoff", 1),
            ("repetition_penalty", 0),
            ("max_new_tokens", 0),
            ("max_new_tokens", "many"),
            ("max_length", 0),
            ("min_new_tokens", -1),
            ("max_time", -1),
            ("stop_strings", ""),
            ("stop_strings", []),
            ("stop_strings", [3]),
            ("do_sample", "yes"),
            ("num_beams", 0),
            ("num_return_sequences", 0),
            ("eos_token_id", "</s>"),
            ("eos_token_id", [1.5]),
            ("bad_words_ids", []),
            ("bad_words_ids", [[]]),
            ("sequence_bias", {}),
            ("sequence_bias", {3: 1.0}),
            ("exponential_decay_length_penalty", (1,)),
            ("num_assistant_tokens_schedule", "sometimes"),
            ("return_dict_in_generate", 3),
            ("seed", "a"),
        ],
    )
    def test_a_value_out_of_range_is_refused_by_name(self, name, value):
        with pytest.raises(ArgumentError, match=f"`{name}` must be .*, got "):
            resolved({name: value})

    @pytest.mark.parametrize(
        "call",
        [
            {"do_sample": True, "temperature": 2},
            {"do_sample": True, "temperature": 0},
            {"do_sample": True, "top_k": 0},
            {"do_sample": True, "top_p": 0.0},
            {"do_sample": True, "top_p": 1},
            {"eos_token_id": (1, 2)},
            {"eos_token_id": []},
            {"min_new_tokens": 0},
            {"max_time": 0},
        ],
    )
    def test_a_value_at_its_limit_is_taken(self, call):
        check_supported(resolved(call))

    def test_an_inherited_value_that_does_nothing_is_let_be(self):
        model = GenerationConfig(top_p=1.5)
        assert resolved({}, None, model).top_p == 1.5
        with pytest.raises(ArgumentError, match="top_p"):
            resolved({"do_sample": True}, None, model)


class TestSupport:
    def test_what_is_not_asked_for_is_supported(self):
        check_supported(resolved())

    def test_every_supported_name_is_a_field(self):
        assert set(SUPPORTED) <= set(FIELDS)

    def test_a_wish_that_is_not_done_yet_is_refused_by_name(self):
        with pytest.raises(NotSupportedError, match="`use_mtp=True` is not supported: no family here has heads"):
            check_supported(resolved({"use_mtp": True}))

    @pytest.mark.parametrize(
        "call",
        [
            {"use_cache": True},
            {"use_cache": False},
            {"cache_implementation": "quantized"},
            {"prefill_chunk_size": 16},
            {"guidance_scale": 1.0},
            {"penalty_alpha": 0.0},
            {"suppress_tokens": []},
            {"token_healing": False},
            {"use_mtp": False},
            {"cache_implementation": "dynamic"},
            {"num_assistant_tokens": 5},
            {"decoder_start_token_id": 3},
            {"typical_p": 0.5},
            {"length_penalty": 2.0},
            {"is_assistant": True},
        ],
    )
    def test_a_neutral_or_idle_wish_is_not_refused(self, call):
        check_supported(resolved(call))


class TestWarnings:
    def test_come_once_for_all_calls_of_a_model(self, caplog):
        model = GenerationConfig()
        with caplog.at_level(logging.WARNING, LOG):
            for _ in range(3):
                resolved({"length_penalty": 2.0}, None, model)
        assert len(caplog.records) == 1

    def test_do_not_come_for_what_the_model_ships_where_the_user_chose_the_mode(self, caplog):
        model = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9)
        with caplog.at_level(logging.WARNING, LOG):
            resolved({"do_sample": False}, None, model)
            resolved({"temperature": 0}, None, model)
            resolved({}, GenerationConfig(do_sample=False), model)
        assert not caplog.records

    def test_come_for_what_the_user_set_in_vain(self, caplog):
        with caplog.at_level(logging.WARNING, LOG):
            resolved({"do_sample": True, "temperature": 0, "top_p": 0.5})
        assert "`top_p=0.5` has no effect: `temperature=0`" in caplog.text


CALLS = [{}, {"top_k": 7}, {"top_k": None}, {"do_sample": False}, {"max_new_tokens": 3, "eos_token_id": None, "foo": 1}]
GIVEN = [None, {}, {"do_sample": True, "top_p": 0.5}, {"max_length": 30, "foo": 2, "eos_token_id": [4]}]
MODELS = [{}, {"do_sample": True, "temperature": 0.5, "top_k": 3, "foo": 3}, {"eos_token_id": 5, "min_length": 2}]


@pytest.mark.parametrize("call", CALLS, ids=str)
@pytest.mark.parametrize("given", GIVEN, ids=str)
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_every_value_is_that_of_transformers(call, given, model):
    transformers = pytest.importorskip("transformers")
    from transformers.generation import GenerationMixin

    theirs = SimpleNamespace(
        generation_config=transformers.GenerationConfig(**model),
        config=SimpleNamespace(_get_generation_parameters=dict),
    )
    passed = None if given is None else transformers.GenerationConfig(**given)
    expected, rest = GenerationMixin._prepare_generation_config(theirs, passed, **call)
    ours = None if given is None else GenerationConfig(**given)
    config, leftover = resolve(call, ours, GenerationConfig(**model), accepts=[*MODEL_INPUTS, "foo"])
    for name in {*FIELDS, "foo"} - {"seed"}:
        mine, right = getattr(config, name, None), getattr(expected, name, None)
        settled = FIELDS[name].default if name in LENGTHS and mine is None else mine
        assert settled == right or (not settled and not right), name
    assert leftover == rest
