"""GenerationConfig keeps what it is given through every form it can take, whatever that is."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.settings.checks import number, whole
from fabula.generation.settings.config import GenerationConfig
from fabula.generation.settings.fields import FIELDS
from fabula.generation.settings.lengths import lengths_for
from fabula.generation.settings.rules import check_supported, resolve

MANY = settings(deadline=None, max_examples=50)
IDS = st.integers(0, 2**31 - 1)
BY_KIND = {
    "int": st.integers(1, 10**6),
    "float": st.floats(0.01, 0.99),
    "bool": st.booleans(),
    "ints": IDS | st.lists(IDS, min_size=1, max_size=4),
    "texts": st.text(min_size=1) | st.lists(st.text(min_size=1), min_size=1, max_size=3),
}
PLAIN = {field.name: BY_KIND[field.kind] for field in FIELDS.values() if field.kind in BY_KIND}
PLAIN |= {
    "num_return_sequences": st.just(1),
    "num_beam_groups": st.just(1),
    "suppress_tokens": st.just([0]),
    "early_stopping": st.sampled_from([True, False, "never"]),
    "cache_implementation": st.sampled_from(["dynamic", "static", "quantized"]),
    "bad_words_ids": st.lists(st.lists(IDS, min_size=1), min_size=1, max_size=3),
    "sequence_bias": st.lists(st.tuples(st.lists(IDS, min_size=1), st.floats(-5, 5)).map(list), min_size=1),
    "seed": IDS | st.lists(IDS, min_size=1, max_size=3),
    "watermarking_config": st.fixed_dictionaries({"bias": st.floats(-5, 5), "context_width": st.integers(1, 5)}),
    "forced_eos_token_id": st.integers(1, 9),
    "forced_bos_token_id": st.integers(1, 9),
    "decoder_name": st.text(),
}
SETTINGS = st.fixed_dictionaries({}, optional=PLAIN)


@MANY
@given(SETTINGS)
def test_json_gives_the_same_config(fields):
    config = GenerationConfig(**fields)
    assert GenerationConfig.from_dict(json.loads(config.to_json_string())) == config
    assert GenerationConfig.from_dict(json.loads(config.to_json_string(use_diff=False))) == config


@MANY
@given(SETTINGS)
def test_what_was_set_is_what_differs(fields):
    difference = GenerationConfig(**fields).to_diff_dict()
    assert set(difference) == {*fields, "transformers_version"}


@MANY
@given(SETTINGS, SETTINGS)
def test_update_is_construction_of_both(first, second):
    config = GenerationConfig(**first)
    assert config.update(allow_custom_entries=True, **second) == {}
    assert config == GenerationConfig(**{**first, **second})


@MANY
@given(SETTINGS)
def test_a_dictionary_is_a_copy(fields):
    config = GenerationConfig(**fields)
    data = config.to_dict()
    for value in data.values():
        if isinstance(value, list):
            value.clear()
    assert config == GenerationConfig(**fields)


@MANY
@given(st.integers() | st.floats() | st.booleans() | st.text() | st.none(), st.integers(-5, 5))
def test_checks_agree_with_arithmetic(value, least):
    is_int = isinstance(value, int) and not isinstance(value, bool)
    assert whole(least).accepts(value) == (is_int and value >= least)
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    assert number("[0,1)").accepts(value) == (is_real and 0 <= value < 1)


VALUES = [None, True, False, 0, -1, 1, 3, 2**70, 0.5, math.nan, math.inf, "", "4", [], [1], [-1], ["a"], [[1]], [[]]]
VALUES += [{}, {"a": 1}, {"bias": "x"}, [[[1], 0.5]], [1, 2]]
NAMES = sorted({*FIELDS, *dir(GenerationConfig), "", "a b", "temprature", "attention_mask", "streamer"})
HOSTILE = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES), max_size=4)


@settings(deadline=None, max_examples=300)
@given(HOSTILE)
def test_whatever_a_file_holds_is_taken_or_refused_by_name(fields):
    try:
        config = GenerationConfig.from_dict(fields)
        str(config.explain())
        check_supported(resolve({}, None, config)[0])
    except (ArgumentError, NotSupportedError) as error:
        assert "`" in str(error)


@settings(deadline=None, max_examples=300)
@given(HOSTILE, HOSTILE)
def test_whatever_a_call_holds_is_taken_or_refused_by_name(call, fields):
    try:
        config = resolve(call, None, GenerationConfig.from_dict(fields))[0]
        check_supported(config)
        lengths_for(config, 4, 64)
        config.explain(**call)
    except (ArgumentError, NotSupportedError) as error:
        assert str(error)


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_whatever_a_field_is_set_to_is_taken_or_refused_by_name(name):
    for value in VALUES:
        for call, shipped in (({name: value}, {}), ({}, {name: value})):
            try:
                config, _ = resolve(call, GenerationConfig(**shipped), GenerationConfig())
                lengths_for(config, 4, 64)
                check_supported(config)
            except (ArgumentError, NotSupportedError) as error:
                assert f"`{name}" in str(error) or "`watermarking_config" in str(error), (value, error)
