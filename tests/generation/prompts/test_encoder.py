"""The texts of an encoder and the starts of its decoder are read as transformers reads them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fabula.errors import ArgumentError
from fabula.generation.prompts.encoder import decoder_prompts, read_encoder_inputs, start_tokens

IDS = np.array([[0, 5, 6], [7, 8, 9]])
TOKENS = {"pad": 0, "eos": frozenset((1,)), "bos": None}


def test_padding_is_known_by_its_mask_or_by_its_token():
    given = read_encoder_inputs(IDS, None, None, **TOKENS)
    assert given.mask.tolist() == [[False, True, True], [True, True, True]]
    assert np.array_equal(given.ids, IDS)
    assert [row.tolist() for row in given.prompts.rows] == [[5, 6], [7, 8, 9]]
    given = read_encoder_inputs(IDS, np.array([[1, 1, 0], [1, 1, 1]]), None, **TOKENS)
    assert given.mask.tolist() == [[True, True, False], [True, True, True]]
    assert (given.rows, given.like is IDS) == (2, True)


def test_lists_become_a_rectangle():
    given = read_encoder_inputs([[5], [7, 8, 9]], None, None, **TOKENS)
    assert given.ids.tolist() == [[5, 0, 0], [7, 8, 9]]
    assert given.mask.tolist() == [[True, False, False], [True, True, True]]
    assert given.like is None


@pytest.mark.parametrize(
    "wrap", [lambda x: (x,), lambda x: SimpleNamespace(last_hidden_state=x), None], ids=["tuple", "object", "array"]
)
def test_an_encoding_stands_for_the_texts(wrap):
    hidden = np.zeros((2, 3, 8), np.float32)
    outputs = {"last_hidden_state": hidden} if wrap is None else wrap(hidden)
    given = read_encoder_inputs(None, None, outputs, **TOKENS)
    assert given.mask.tolist() == [[True] * 3] * 2
    assert (given.prompts, given.ids, given.like is hidden, given.outputs is outputs) == (None, None, True, True)
    given = read_encoder_inputs(IDS, [[0, 1, 1], [1, 1, 1]], outputs, **TOKENS)
    assert given.mask.tolist() == [[False, True, True], [True, True, True]]
    assert [row.tolist() for row in given.prompts.rows] == [[5, 6], [7, 8, 9]]


@pytest.mark.parametrize("outputs", [(), {}, {"x": 1}, 3, (np.zeros((2, 3)),), SimpleNamespace(last_hidden_state=None)])
def test_what_is_no_encoding_is_refused(outputs):
    with pytest.raises(ArgumentError, match="`encoder_outputs` must hold `last_hidden_state`"):
        read_encoder_inputs(None, None, outputs, **TOKENS)


def test_a_mask_must_fit_the_encoding():
    with pytest.raises(ArgumentError, match=r"`attention_mask` must have the shape \[2, 3\] of `encoder_outputs`"):
        read_encoder_inputs(None, np.ones((2, 4)), (np.zeros((2, 3, 8)),), **TOKENS)


@pytest.mark.parametrize(
    ("start", "bos", "expected"),
    [(4, None, [4, 4]), (4, 2, [4, 4]), (None, 2, [2, 2]), ([4, 5], None, [4, 5]), (0, 2, [0, 0])],
)
def test_a_decoder_starts_from_its_own_token_or_that_of_the_beginning(start, bos, expected):
    assert start_tokens(start, bos, 2).tolist() == expected


def test_starts_that_are_missing_or_too_many_are_refused():
    with pytest.raises(ArgumentError, match="`decoder_start_token_id` or `bos_token_id` has to be defined"):
        start_tokens(None, None, 2)
    with pytest.raises(ArgumentError, match="one id or one for each of 2 rows, got 3 ids"):
        start_tokens([1, 2, 3], None, 2)


STARTS = np.array([0, 3])


def test_without_ids_the_start_tokens_are_the_prompts():
    prompts = decoder_prompts(None, None, STARTS, IDS)
    assert [row.tolist() for row in prompts.rows] == [[0], [3]]
    assert prompts.given.tolist() == prompts.as_host().tolist() == [[0], [3]]
    assert decoder_prompts(None, None, STARTS).given is None


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([[5, 6], [7, 8]], [[0, 5, 6], [3, 7, 8]]),
        ([[0, 6], [7, 8]], [[0, 6], [7, 8]]),
        ([[5, 6], [3, 8]], [[5, 6], [3, 8]]),
        ([[3, 6], [0, 8]], [[0, 3, 6], [3, 0, 8]]),
    ],
)
@pytest.mark.parametrize("kind", [np.array, list])
def test_a_start_is_prepended_where_no_row_has_its_own(ids, expected, kind):
    prompts = decoder_prompts(kind(ids), None, STARTS)
    assert [row.tolist() for row in prompts.rows] == expected
    if kind is not list:
        assert prompts.given.tolist() == expected


def test_padding_of_the_decoder_is_dropped_by_its_mask_alone():
    ids, mask = np.array([[0, 0, 6], [9, 7, 8]]), np.array([[0, 1, 1], [1, 1, 1]])
    prompts = decoder_prompts(ids, mask, STARTS)
    assert [row.tolist() for row in prompts.rows] == [[0, 6], [9, 7, 8]]
    prompts = decoder_prompts(ids, mask, np.array([4, 4]))
    assert [row.tolist() for row in prompts.rows] == [[4, 0, 6], [4, 9, 7, 8]]
    assert prompts.mask.tolist() == [[True, False, True, True], [True] * 4]
    prompts = decoder_prompts(np.array([[0, 0], [0, 0]]), None, np.array([0, 0]))
    assert [row.tolist() for row in prompts.rows] == [[0, 0], [0, 0]]


def test_ids_of_another_number_of_rows_are_refused():
    with pytest.raises(ArgumentError, match=r"`decoder_input_ids` must have 2 rows, one for each text .* got 1"):
        decoder_prompts(np.array([[1, 2]]), None, STARTS)
