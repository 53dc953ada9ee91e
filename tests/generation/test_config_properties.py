"""GenerationConfig keeps what it is given through every form it can take, whatever that is."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from fabula.generation.checks import number, whole
from fabula.generation.config import GenerationConfig
from fabula.generation.config_fields import FIELDS

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
