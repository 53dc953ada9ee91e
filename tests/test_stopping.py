"""Criteria end the rows they should, however they are written and called."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from fabula import stopping
from fabula.context import Context
from fabula.errors import ArgumentError, NotSupportedError

WORDS = ["st", "op", "stop", "opera", "sto", "pper", " ", "las", "topper", "x"]


@pytest.fixture(params=["numpy", "torch"])
def xp(request):
    pytest.importorskip(request.param)
    return import_module(f"fabula.arrays.{request.param}")


class WordTokenizer:
    """Token i is WORDS[i]."""

    def decode(self, ids, skip_special_tokens=False):
        return "".join(WORDS[token] for token in ids)


def ragged(xp, rows, padding=0):
    """Rows of different lengths, with 0 beyond them."""
    tokens = np.zeros((len(rows), max(map(len, rows))), dtype=np.int32)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    return Context(*(xp.asarray(part, "int32") for part in (tokens, lengths, lengths)), padding=padding)


def answer(xp, done):
    host = xp.to_host(done)
    assert host.dtype == np.bool_
    return host.tolist()


def test_a_row_ends_at_its_own_length(xp):
    context = ragged(xp, [[1, 2, 3], [1], [1, 2, 3, 4]])
    assert answer(xp, stopping.MaxLengthCriteria(3).done(context)) == [True, False, True]


def test_a_row_longer_than_the_models_positions_gives_a_warning(xp):
    with pytest.warns(UserWarning, match="2 positions"):
        stopping.MaxLengthCriteria(9, max_position_embeddings=2).done(ragged(xp, [[1, 2, 3]]))


@pytest.mark.parametrize("ends", [7, [7, 8], np.array([8, 7])])
def test_a_row_ends_with_an_end_token_in_the_last_place(xp, ends):
    context = ragged(xp, [[1, 2, 7], [7], [7, 2, 3, 4]])
    assert answer(xp, stopping.EosTokenCriteria(ends).done(context)) == [True, True, False]


def test_an_end_token_is_looked_for_among_several_new_tokens(xp):
    ids = xp.asarray([[1, 2, 7, 3], [7, 1, 2, 3]], "int64")
    criterion = stopping.EosTokenCriteria(7)
    assert answer(xp, criterion(ids, None)) == [False, False]
    assert answer(xp, criterion(ids, None, new_token_length=2)) == [True, False]


def test_time_ends_every_row(xp):
    context = ragged(xp, [[1], [1, 2]])
    assert answer(xp, stopping.MaxTimeCriteria(1.0, initial_timestamp=0.0).done(context)) == [True, True]
    assert answer(xp, stopping.MaxTimeCriteria(1e6).done(context)) == [False, False]


STOPPED = [["st", "op"], ["stop"], ["st", "opera"], ["sto", "pper"], ["las", "topper"], ["x", "stop"]]
NOT_STOPPED = [["stop", " "], ["st"], ["op", "st"], ["st", " ", "op"], ["stop", "x", "st"]]


def test_a_stop_string_ends_a_row_if_the_last_token_completes_it(xp):
    rows = [[WORDS.index(word) for word in row] for row in STOPPED[:4] + STOPPED[5:] + NOT_STOPPED]
    criterion = stopping.StopStringCriteria(WordTokenizer(), ["stop"])
    assert answer(xp, criterion.done(ragged(xp, rows))) == [True] * 5 + [False] * 5


def test_the_first_part_of_a_stop_string_may_lie_inside_a_token(xp):
    row = [WORDS.index("las"), WORDS.index("topper")]
    assert answer(xp, stopping.StopStringCriteria(WordTokenizer(), "stop").done(ragged(xp, [row]))) == [True]


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ArgumentError, match="stop_strings"):
        stopping.StopStringCriteria(WordTokenizer(), ["stop", ""])


def test_low_confidence_ends_a_row(xp):
    scores = (xp.asarray(np.log([[0.9, 0.1], [0.2, 0.8]]), "float32"),)
    context = ragged(xp, [[1, 0], [0]])
    assert answer(xp, stopping.ConfidenceCriteria(0.5).done(context, scores)) == [False, True]
    with pytest.raises(ArgumentError, match="output_scores"):
        stopping.ConfidenceCriteria(0.5).done(context)


class Classic(stopping.StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return input_ids[:, -1] == 3


class Modern(stopping.StoppingCriteria):
    def done(self, context, scores=None):
        return context.lengths == 2


@pytest.mark.parametrize("kind", [Classic, Modern])
def test_a_criterion_may_be_written_either_way_and_called_either_way(xp, kind):
    assert answer(xp, kind().done(ragged(xp, [[1, 3], [1, 2, 4]]))) == [True, False]
    expected = [True, False] if kind is Classic else [True, True]
    assert answer(xp, kind()(xp.asarray([[1, 3], [1, 4]], "int64"), None)) == expected


def test_any_callable_is_a_criterion_and_may_answer_for_all_rows_at_once(xp):
    seen = []
    criteria = stopping.StoppingCriteriaList(
        [stopping.MaxLengthCriteria(3), lambda ids, scores, **kwargs: bool(seen.append(xp.to_host(ids).tolist()))]
    )
    assert answer(xp, criteria.done(ragged(xp, [[1, 2, 3], [4]], padding=9))) == [True, False]
    assert seen == [[[1, 2, 3], [9, 9, 4]]]
    criteria.append(lambda ids, scores, **kwargs: True)
    assert answer(xp, criteria.done(ragged(xp, [[1, 2, 3], [4]]))) == [True, True]
    assert answer(xp, criteria(xp.asarray([[1], [2]], "int64"), None)) == [True, True]


def test_a_criterion_of_transformers_works_in_our_list():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("transformers")
    xp = import_module("fabula.arrays.torch")
    criteria = stopping.StoppingCriteriaList([theirs.EosTokenCriteria(7), theirs.MaxLengthCriteria(9)])
    done = criteria.done(ragged(xp, [[1, 7], [7, 1], [7]]))
    assert done.tolist() == [True, False, True]
    assert done.dtype == torch.bool


def test_the_list_knows_its_maximal_length():
    criteria = stopping.StoppingCriteriaList([stopping.EosTokenCriteria(1), stopping.MaxLengthCriteria(5)])
    assert criteria.max_length == 5
    assert stopping.StoppingCriteriaList().max_length is None


def test_no_criteria_end_nothing(xp):
    assert answer(xp, stopping.StoppingCriteriaList().done(ragged(xp, [[1], [2]]))) == [False, False]


def test_a_criterion_that_overrides_neither_says_so(xp):
    with pytest.raises(NotSupportedError, match="must override"):
        stopping.StoppingCriteria().done(ragged(xp, [[1]]))
