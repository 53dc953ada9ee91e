"""Tokenizers of Hugging Face directories: ids, text, tokens and saving as in transformers, for each kind there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabula.errors import ModelFileError
from fabula.hub.files import read_tokenizer
from fabula.text.files import TokenizerFiles
from fabula.text.tokenizer import Tokenizer

from .trained import KINDS, write

transformers = pytest.importorskip("transformers")
SAMPLES = [
    "",
    " ",
    "Call me Ishmael.",
    "  two  spaces ",
    "né́e 東京 😀\n\ttab",
    "<think>a</s><|end|> b<tool>  c",
    "don't stop !",
    "a , b .",
]


@pytest.fixture(scope="module", params=sorted(KINDS))
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(request.param, tmp_path_factory.mktemp(request.param))


def load(directory: Path) -> Tokenizer:
    return Tokenizer.from_files(read_tokenizer(directory, str(directory)))


def assert_equal(ours: Tokenizer, theirs, texts: list[str]) -> None:
    for special in (True, False):
        expected = theirs(texts, add_special_tokens=special)
        encoding = ours(texts, add_special_tokens=special)
        assert dict(encoding) == dict(expected)
        for skip in (True, False):
            ids = expected["input_ids"]
            assert ours.batch_decode(ids, skip_special_tokens=skip) == theirs.batch_decode(
                ids, skip_special_tokens=skip
            )
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours.all_special_ids == theirs.all_special_ids
    assert ours.get_vocab() == theirs.get_vocab()
    assert (len(ours), ours.vocab_size) == (len(theirs), theirs.vocab_size)
    assert ours.model_max_length == theirs.model_max_length
    assert (ours.padding_side, ours.truncation_side) == (theirs.padding_side, theirs.truncation_side)


def test_a_directory_reads_as_in_transformers(directory: Path, texts: list[str]):
    assert_equal(load(directory), transformers.AutoTokenizer.from_pretrained(directory), SAMPLES + texts[::40])


def test_what_is_saved_reads_the_same_in_transformers_and_here(directory: Path, tmp_path: Path, texts: list[str]):
    ours = load(directory)
    files = ours.save_pretrained(tmp_path / "saved")
    assert all(Path(file).is_file() for file in files)
    reread = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert_equal(ours, reread, SAMPLES + texts[::80])
    assert_equal(load(tmp_path / "saved"), reread, SAMPLES)
    assert reread.chat_template == ours.chat_template == load(tmp_path / "saved").chat_template


@pytest.mark.parametrize("options", [
    {"padding": True}, {"padding": "max_length", "max_length": 12, "truncation": True},
    {"truncation": True, "max_length": 3}, {"padding": True, "pad_to_multiple_of": 8, "padding_side": "left"},
    {"max_length": 4}, {"padding": "longest", "padding_side": "right", "return_special_tokens_mask": True},
    {"return_offsets_mapping": True}, {"truncation": True, "max_length": 1, "add_special_tokens": False},
    {"return_length": True, "return_attention_mask": False}, {"split_special_tokens": True},
], ids=str)  # fmt: skip
def test_options_of_a_call_mean_what_they_mean_in_transformers(directory: Path, options: dict):
    ours, theirs = load(directory), transformers.AutoTokenizer.from_pretrained(directory)
    for tokenizer in (ours, theirs):
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
    for texts in (SAMPLES, SAMPLES[2]):
        assert dict(ours(texts, **options)) == dict(theirs(texts, **options))
    arrays, expected = (
        ours(SAMPLES[2], return_tensors="np", **options),
        theirs(SAMPLES[2], return_tensors="np", **options),
    )
    assert {name: array.tolist() for name, array in arrays.items()} == {
        name: array.tolist() for name, array in expected.items()
    }


def test_small_methods_agree_with_transformers(directory: Path):
    ours, theirs = load(directory), transformers.AutoTokenizer.from_pretrained(directory)
    ids = theirs.encode(SAMPLES[5])
    assert ours.encode(SAMPLES[5]) == ids
    assert ours.tokenize(SAMPLES[5]) == theirs.tokenize(SAMPLES[5])
    assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
    assert ours.convert_tokens_to_ids(["e", "no such token"]) == theirs.convert_tokens_to_ids(["e", "no such token"])
    assert ours.decode(ids[1]) == theirs.decode(ids[1])
    assert ours.add_tokens(["<new>", "e"]) == theirs.add_tokens(["<new>", "e"])
    assert ours.add_special_tokens({"pad_token": "<filler>"}) == theirs.add_special_tokens({"pad_token": "<filler>"})
    assert ours("a<new><filler>b")["input_ids"] == theirs("a<new><filler>b")["input_ids"]
    assert ours.pad_token_id == theirs.pad_token_id
    rows = [{"input_ids": [5, 6, 7]}, {"input_ids": [8]}]
    assert dict(ours.pad(rows)) == dict(theirs.pad(rows))


def test_damaged_and_missing_files_are_refused_by_name():
    with pytest.raises(ModelFileError, match=r"tokenizer\.json of here"):
        Tokenizer.from_files(TokenizerFiles(tokenizer_json="{", source="here"))
    with pytest.raises(ModelFileError, match="must be converted first"):
        Tokenizer.from_files(TokenizerFiles(source="here"))
    with pytest.raises(ModelFileError, match="`padding_side`"):
        files = TokenizerFiles('{"model": {"type": "BPE", "vocab": {}, "merges": []}}', {"padding_side": "top"})
        Tokenizer.from_files(files)
