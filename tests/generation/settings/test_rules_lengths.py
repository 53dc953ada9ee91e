"""The length rule: how many new tokens a call allows and asks for."""

import logging
from types import SimpleNamespace

import pytest

from fabula.errors import ArgumentError, ContextLengthError
from fabula.generation.settings.config import GenerationConfig
from fabula.generation.settings.lengths import Lengths, lengths_for, new_token_limits
from fabula.generation.settings.rules import resolve

LOG = "fabula.generation"


def config_of(**call):
    return resolve(call, None, GenerationConfig())[0]


@pytest.mark.parametrize(
    ("call", "width", "context", "expected"),
    [
        ({}, 3, None, Lengths(20, 0)),
        ({}, 3, 10, Lengths(7, 0)),
        ({"max_new_tokens": 5}, 3, None, Lengths(5, 0)),
        ({"max_length": 9}, 3, None, Lengths(6, 0)),
        ({"max_length": 9, "max_new_tokens": 30}, 3, None, Lengths(30, 0)),
        ({"max_length": 2, "max_new_tokens": 30}, 3, None, Lengths(30, 0)),
        ({"max_new_tokens": 30}, 3, 10, Lengths(7, 0)),
        ({"min_length": 9}, 3, None, Lengths(20, 6)),
        ({"min_length": 2}, 3, None, Lengths(20, 0)),
        ({"min_new_tokens": 4}, 3, None, Lengths(20, 4)),
        ({"min_new_tokens": 4, "min_length": 100}, 3, None, Lengths(20, 4)),
    ],
    ids=str,
)
def test_lengths_are_those_that_hold(call, width, context, expected):
    assert lengths_for(config_of(**call), width, context) == expected


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({}, "at most 20 new tokens"),
        ({"max_length": 9, "max_new_tokens": 3}, "`max_new_tokens` (=3) and `max_length` (=9) are set"),
        ({"min_length": 2, "min_new_tokens": 1, "max_new_tokens": 3}, "`min_new_tokens` (=1) and `min_length` (=2)"),
        ({"min_new_tokens": 9, "max_new_tokens": 3}, "At least 9 new tokens are asked for"),
        ({"max_new_tokens": 300}, "generation ends there"),
    ],
    ids=str,
)
def test_a_doubtful_length_warns_once(call, words, caplog):
    config = config_of(**call)
    with caplog.at_level(logging.WARNING, LOG):
        for _ in range(3):
            lengths_for(config, 4, 64)
    assert [words in record.message for record in caplog.records] == [True]


def test_the_default_length_warns_once_a_model(caplog):
    model = GenerationConfig()
    with caplog.at_level(logging.WARNING, LOG):
        for width in range(1, 4):
            lengths_for(resolve({}, None, model)[0], width)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("call", [{"max_new_tokens": 4}, {"max_length": 8}, {"min_new_tokens": 2, "max_new_tokens": 4}])
def test_a_sound_length_does_not_warn(call, caplog):
    with caplog.at_level(logging.WARNING, LOG):
        lengths_for(config_of(**call), 4, 64)
    assert not caplog.records


def test_a_prompt_as_long_as_max_length_is_refused():
    with pytest.raises(ArgumentError, match="`max_length` must be more than the prompt's 9 tokens, got 9"):
        lengths_for(config_of(max_length=9), 9)


def test_a_prompt_as_long_as_the_context_is_refused():
    with pytest.raises(ContextLengthError, match="context, 8 tokens, got 8"):
        lengths_for(config_of(max_new_tokens=1), 8, 8)


def test_padding_counts_in_max_length_and_not_in_the_context():
    prompts = SimpleNamespace(rows=[[1] * 2, [1] * 6], width=lambda index: 6)
    assert new_token_limits(config_of(max_length=10), prompts, 9) == [(4, 0), (3, 0)]


def test_ragged_prompts_have_limits_of_their_own():
    rows = [[1] * 2, [1] * 6]
    prompts = SimpleNamespace(rows=rows, width=lambda index: len(rows[index]))
    assert new_token_limits(config_of(max_length=10, min_length=8), prompts, 64) == [(8, 6), (4, 2)]


MAXIMA = [{}, {"max_new_tokens": 5}, {"max_length": 12}, {"max_new_tokens": 5, "max_length": 9}]
MINIMA = [{}, {"min_new_tokens": 2}, {"min_length": 8}, {"min_new_tokens": 2, "min_length": 9}]


@pytest.mark.parametrize("maximum", MAXIMA, ids=str)
@pytest.mark.parametrize("minimum", MINIMA, ids=str)
def test_lengths_are_those_of_transformers(maximum, minimum):
    reference = pytest.importorskip("transformers").GenerationConfig
    from transformers.generation import GenerationMixin

    call = {**maximum, **minimum}
    expected = reference(**{**reference._get_default_generation_params(), **call})
    expected = GenerationMixin._prepare_generated_length(
        SimpleNamespace(config=SimpleNamespace(max_position_embeddings=20, is_encoder_decoder=False)),
        expected,
        has_default_max_length="max_length" not in call,
        has_default_min_length="min_length" not in call,
        model_input_name="input_ids",
        input_ids_length=4,
        inputs_tensor=None,
    )
    ours = lengths_for(config_of(**call), 4, 20)
    assert (4 + ours.most, 4 + ours.least) == (expected.max_length, max(4, expected.min_length))
