"""Criteria end the rows that those of transformers end, on random rows and on every prefix of texts."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from fabula import AutoTokenizer, stopping
from fabula.context import Context

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = [
    "Stop here. Or stop there, or do not stop at all: STOP!",
    "un café à Besançon, très bien\n\nUser: et voilà\nUser:",
    "日本語のテキスト。終わり。まだ。",
    "naïve 😀😀 emoji 👩‍👩‍👧 end<|done|> and <|done|>",
    "aaaa aaa aa a bbbb ab abab ababab",
]
STOPS = [
    ["stop"],
    ["top"],
    ["User:"],
    ["\n\n"],
    ["é"],
    ["終わり"],
    ["😀"],
    ["<|done|>", "。"],
    ["aaa", "bab"],
    [" "],
    ["ci", "Besan", "here. Or", "at all"],
]


@pytest.fixture(params=["numpy", "torch"])
def xp(request):
    return import_module(f"fabula.arrays.{request.param}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small tokenizer whose pieces hold parts of characters, as ours and as that of transformers."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(TEXTS * 2, trainers.BpeTrainer(vocab_size=380, initial_alphabet=alphabet))
    folder = tmp_path_factory.mktemp("tokenizer")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
    theirs.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder), theirs


def answers(xp, criterion, rows):
    """What our criterion says of ragged rows."""
    matrix = np.zeros((len(rows), max(map(len, rows)) + 2), np.int32)
    for place, row in enumerate(rows):
        matrix[place, : len(row)] = row
    lengths = np.array([len(row) for row in rows], np.int32)
    context = Context(*(xp.asarray(part, "int32") for part in (matrix, lengths, lengths)))
    return xp.to_host(criterion.done(context)).tolist()


@pytest.mark.parametrize("stops", STOPS, ids=str)
def test_stop_strings_end_every_prefix_that_transformers_ends(xp, trained, stops):
    mine, theirs = trained
    reference = transformers.StopStringCriteria(theirs, stops)
    criterion = stopping.StopStringCriteria(mine, stops)
    rows = [ids[:end] for ids in map(mine.encode, TEXTS) for end in range(1, len(ids) + 1)]
    expected = [bool(reference(torch.tensor([row]), None)[0]) for row in rows]
    assert any(expected)
    assert answers(xp, criterion, rows) == expected


@pytest.mark.parametrize("seed", range(5))
def test_criteria_of_length_and_end_equal_those_of_transformers(xp, seed):
    generator = np.random.default_rng(seed)
    rows = [generator.integers(0, 6, length).tolist() for length in generator.integers(1, 9, 12)]
    for name, arguments in (
        ("MaxLengthCriteria", [5]),
        ("EosTokenCriteria", [3]),
        ("EosTokenCriteria", [[1, 4]]),
        ("EosTokenCriteria", [torch.tensor([2, 5])]),
        ("MaxTimeCriteria", [1e6]),
        ("MaxTimeCriteria", [1.0, 0.0]),
    ):
        reference = getattr(transformers, name)(*arguments)
        expected = [bool(reference(torch.tensor([row]), None)[0]) for row in rows]
        assert answers(xp, getattr(stopping, name)(*arguments), rows) == expected, name


@pytest.mark.parametrize("seed", range(5))
def test_a_list_equals_that_of_transformers_and_passes_on_what_it_is_given(xp, seed):
    ids = np.random.default_rng(seed).integers(0, 9, (6, 7))
    lists = [
        module.StoppingCriteriaList([module.MaxLengthCriteria(9), module.EosTokenCriteria([3, 4])])
        for module in (transformers, stopping)
    ]
    expected = lists[0](torch.tensor(ids), None, new_token_length=3).tolist()
    assert xp.to_host(lists[1](xp.asarray(ids, "int64"), None, new_token_length=3)).tolist() == expected


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.9])
def test_confidence_equals_that_of_transformers_row_by_row(xp, threshold):
    generator = np.random.default_rng(0)
    scores, ids = generator.normal(0, 2, (8, 5)).astype(np.float32), generator.integers(0, 5, (8, 3))
    reference = transformers.generation.stopping_criteria.ConfidenceCriteria(threshold)
    expected = [reference(torch.tensor(ids[row : row + 1]), (torch.tensor(scores[row : row + 1]),)) for row in range(8)]
    got = stopping.ConfidenceCriteria(threshold)(xp.asarray(ids, "int64"), (xp.asarray(scores, "float32"),))
    assert xp.to_host(got).tolist() == expected


def test_a_missing_length_is_added_and_another_one_is_told():
    criteria = stopping.validate_stopping_criteria(stopping.StoppingCriteriaList(), 7)
    assert criteria.max_length == 7
    with pytest.warns(UserWarning, match="max_length.*9.*7"):
        assert stopping.validate_stopping_criteria(criteria, 9).max_length == 7


def test_no_criterion_of_transformers_is_missing():
    module = transformers.generation.stopping_criteria
    named = {
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, (module.StoppingCriteria, module.StoppingCriteriaList))
    }
    assert named <= set(stopping.__all__)
