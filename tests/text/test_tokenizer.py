"""The tokenizer's own rules: special tokens, tensors, options that are refused, threads, wrong GGUF metadata."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fabula.errors import ArgumentError, MissingDependencyError, ModelFileError, NotSupportedError, UnknownArgumentError
from fabula.text import tensors
from fabula.text.byte_level import byte_alphabet
from fabula.text.encoding import BatchEncoding
from fabula.text.files import TokenizerFiles
from fabula.text.pre_tokenizers import CUTS
from fabula.text.tokenizer import Tokenizer


def metadata(**changes) -> dict:
    """A byte-level vocabulary of single bytes, one merge and two control tokens."""
    letters = [byte_alphabet()[byte] for byte in range(256)]
    fields = {
        "model": "gpt2", "pre": "gpt-2", "tokens": [*letters, "ab", "<|a|>", "<|b|>"], "merges": ["a b"],
        "token_type": [1] * 257 + [3, 4], "bos_token_id": 257, "eos_token_id": 257,
    } | changes  # fmt: skip
    return {f"tokenizer.ggml.{name}": value for name, value in fields.items() if value is not None}


def pieces(**changes) -> dict:
    """A SentencePiece-style vocabulary."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *byte_tokens, "▁", "a", "b", "▁a", "ab", "ba", "<x>"]
    types = [2, 3, 3, *[6] * 256, 1, 1, 1, 1, 1, 1, 4]
    scores = [0.0] * 259 + [-5.0, -6.0, -7.0, -2.0, -1.0, -3.0, -1000.0]
    fields = {
        "model": "llama", "tokens": tokens, "scores": scores, "token_type": types, "bos_token_id": 1, "eos_token_id": 2,
        "unknown_token_id": 0,
    } | changes  # fmt: skip
    return {f"tokenizer.ggml.{name}": value for name, value in fields.items() if value is not None}


def build(fields: dict, **others) -> Tokenizer:
    return Tokenizer.from_files(TokenizerFiles(gguf=fields, source="model.gguf", **others))


@pytest.fixture
def small() -> Tokenizer:
    return build(metadata())


def test_control_tokens_are_special_and_given_ones_are_not(small: Tokenizer):
    ids = small.encode("ab<|a|><|b|>")
    assert ids == [256, 257, 258]
    assert small.decode(ids, skip_special_tokens=True) == "ab<|b|>"
    assert 257 not in small.encode("<|a|>", split_special_tokens=True)
    assert 258 in small.encode("<|b|>", split_special_tokens=True)


def test_scores_decide_what_is_merged_first():
    tokenizer = build(pieces())
    spelled = tokenizer.convert_ids_to_tokens(tokenizer.encode("ab a<x>é"))
    assert spelled == ["<s>", "▁", "ab", "▁a", "<x>", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer.encode("ab a<x>é"), skip_special_tokens=True) == "ab a<x>é"
    scores = [0.0] * 259 + [-5.0, -6.0, -7.0, -2.0, -1.0, -3.0, -1000.0]
    assert build(pieces(scores=scores, add_space_prefix=False)).tokenize("aba") == ["ab", "a"]
    scores[-3:-1] = [-3.0, -1.0]
    assert build(pieces(scores=scores, add_space_prefix=False)).tokenize("aba") == ["a", "ba"]


def test_a_prefix_space_and_marks_around_a_text_are_as_the_file_says():
    assert build(pieces(add_space_prefix=False)).tokenize("ab") == ["ab"]
    both = build(pieces(add_bos_token=False, add_eos_token=True))
    assert both.encode("a")[-1] == 2 and both.encode("a")[0] != 1
    assert build(metadata()).encode("ab") == [256]
    assert build(metadata(pre="llama-bpe")).encode("ab") == [257, 256]
    assert build(metadata(add_bos_token=True)).encode("ab") == [257, 256]


@pytest.mark.parametrize("name", sorted(CUTS))
def test_every_named_cut_loses_no_text(name: str):
    text = "Hello  world's 12345 «naïve» 東京の\n\n  x=1;\t// ok\r\n" + "é"
    tokenizer = build(metadata(pre=name))
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text.replace("é", "é")


@pytest.mark.parametrize(("name", "parts"), [
    ("gpt-2", ["It", "'s", "Ġ12345", "Ġ", "Ġ6"]), ("smollm", ["It", "'s", "Ġ", "1", "2", "3", "4", "5", "ĠĠ", "6"]),
    ("llama-bpe", ["It", "'s", "Ġ", "123", "45", "Ġ", "Ġ", "6"]),
    ("qwen2", ["It", "'s", "Ġ", "1", "2", "3", "4", "5", "Ġ", "Ġ", "6"]),
    ("tekken", ["It", "'s", "Ġ", "1", "2", "3", "4", "5", "Ġ", "Ġ", "6"]),
    ("gpt-4o", ["It's", "Ġ", "123", "45", "Ġ", "Ġ", "6"]),
    ("deepseek-v3", ["It", "'s", "Ġ", "123", "45", "ĠĠ", "6"]), ("falcon", ["It", "'", "s", "Ġ12345", "Ġ", "Ġ6"]),
])  # fmt: skip
def test_numbers_and_contractions_are_cut_as_the_name_says(name: str, parts: list[str]):
    cutter = build(metadata(pre=name)).backend_tokenizer.pre_tokenizer
    found = [part for part, _ in cutter.pre_tokenize_str("It's 12345  6")]
    if name == "falcon":
        assert "".join(found) == "".join(parts)
    else:
        assert found == parts


@pytest.mark.parametrize(("fields", "message"), [
    (metadata(pre="never-heard-of"), r"`tokenizer\.ggml\.pre` of model\.gguf .* 'never-heard-of'"),
    (metadata(model="rwkv"), r"`tokenizer\.ggml\.model` .* 'rwkv'"),
    (metadata(tokens=None), r"`tokenizer\.ggml\.tokens`"),
    (metadata(tokens=[]), r"`tokenizer\.ggml\.tokens`"),
    (metadata(merges=None), r"`tokenizer\.ggml\.merges`"),
    (metadata(merges=["a b c"]), r"`tokenizer\.ggml\.merges\[0\]`"),
    (metadata(merges=["a nothing"]), "cannot be used"),
    (metadata(token_type=[1]), r"`tokenizer\.ggml\.token_type`"),
    (metadata(bos_token_id=10**6), r"`tokenizer\.ggml\.bos_token_id`"),
    ({}, r"`tokenizer\.ggml\.tokens`"),
], ids=["pre", "model", "no-tokens", "empty", "no-merges", "merge", "token", "types", "bos", "nothing"])  # fmt: skip
def test_wrong_metadata_are_refused_by_field(fields: dict, message: str):
    with pytest.raises(ModelFileError, match=message):
        build(fields)


def test_options_that_nothing_reads_are_refused(small: Tokenizer):
    with pytest.raises(UnknownArgumentError, match="Did you mean `padding`"):
        small("ab", paddin=True)
    with pytest.raises(NotSupportedError, match="`text_pair`"):
        small("ab", "b")
    with pytest.raises(NotSupportedError, match="`stride`"):
        small("ab", stride=4)
    assert small("ab", stride=0, verbose=False)["input_ids"] == [256]
    wrong = {"padding": "left", "truncation": "x", "max_length": 0, "padding_side": "top", "return_tensors": "xx"}
    for name, value in wrong.items():
        with pytest.raises(ArgumentError, match=f"`{name}`"):
            small("ab", **{name: value})
    for text in (None, 1, ["a", 1], [["a"]]):
        with pytest.raises(ArgumentError, match="`text"):
            small(text)


def test_padding_needs_a_token_and_says_how_to_get_one(small: Tokenizer):
    with pytest.raises(ArgumentError, match=r"tokenizer\.pad_token = tokenizer\.eos_token"):
        small(["a", "abc"], padding=True)
    small.pad_token = small.eos_token
    assert small.pad_token_id == 257
    assert small(["a", "abc"], padding=True, padding_side="left")["input_ids"] == [[257, 97], [256, 99]]
    small.padding_side = "left"
    assert small(["a", "abc"], padding=True)["attention_mask"] == [[0, 1], [1, 1]]
    small.pad_token_id = 258
    assert small.pad_token == "<|b|>"
    for name, value in (("pad_token", "nowhere"), ("pad_token_id", 10**6), ("padding_side", "up"), ("pad_token", 3)):
        with pytest.raises(ArgumentError, match=f"`{name}"):
            setattr(small, name, value)
    small.pad_token = None
    assert small.pad_token_id is None


def test_ragged_rows_become_no_tensor_without_padding(small: Tokenizer):
    with pytest.raises(ArgumentError, match="padding=True"):
        small(["a", "abc"], return_tensors="np")
    assert small(["a", "b"], return_tensors="np").input_ids.dtype == np.int64


def test_torch_tensors_can_be_moved_and_spread(small: Tokenizer):
    torch = pytest.importorskip("torch")
    encoding = small("abc", return_tensors="pt").to("cpu")
    assert encoding.input_ids.dtype == torch.int64 and encoding.input_ids.tolist() == [[256, 99]]
    assert {**encoding}.keys() == {"input_ids", "attention_mask"}
    assert small.batch_decode(encoding.input_ids) == ["abc"]
    assert small.decode(encoding.input_ids[0][0]) == "ab"
    assert small("abc").to("cpu")["input_ids"] == [256, 99]


@pytest.mark.parametrize(("name", "module"), [("jax", "jax"), ("tf", "tensorflow")])
def test_other_frameworks_come_when_asked_for(small: Tokenizer, name: str, module: str):
    try:
        __import__(module)
    except ImportError:
        with pytest.raises(MissingDependencyError, match=f"pip install 'fabula\\[{module}\\]'"):
            small("abc", return_tensors=name)
        return
    ids = small("abc", return_tensors=name).input_ids
    assert tensors.as_lists(ids) == [[256, 99]]


def test_encodings_are_dictionaries_with_attributes(small: Tokenizer):
    encoding = small(["ab c", "b"], return_offsets_mapping=True)
    assert encoding.input_ids is encoding["input_ids"]
    assert encoding.tokens() == ["ab", "Ġ", "c"] and encoding.char_to_token(3) == 2
    assert encoding["offset_mapping"][0] == [(0, 2), (2, 3), (3, 4)]
    assert "input_ids" in encoding and len(encoding[0].ids) == 3
    for twin in (copy.copy(encoding), copy.deepcopy(encoding), pickle.loads(pickle.dumps(encoding))):
        assert twin.input_ids == encoding.input_ids
    with pytest.raises(AttributeError, match="labels"):
        _ = encoding.labels
    with pytest.raises(ArgumentError):
        BatchEncoding({"input_ids": [1]}).tokens()


def test_ids_that_are_none_are_refused_and_absent_ones_are_nothing(small: Tokenizer):
    with pytest.raises(ArgumentError, match="`token_ids`"):
        small.decode([-1])
    with pytest.raises(ArgumentError, match="`token_ids`"):
        small.decode(1.5)
    assert small.decode([97, 10**6, 98]) == "ab"
    assert small.decode([]) == "" and small.decode([[97], []]) == ["a", ""] and small.batch_decode([97]) == ["a"]
    assert small.decode(np.array([[97, 98]])) == ["ab"]
    assert small([]) == {"input_ids": [], "attention_mask": []}


def test_a_template_comes_from_the_metadata(small: Tokenizer):
    fields = metadata() | {"tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}"}
    assert build(fields).apply_chat_template([{"role": "user", "content": "ab"}], return_dict=False) == [257, 256]
    assert build(fields, chat_template="x").chat_template == "x"
    assert small.chat_template is None


def test_threads_may_share_a_tokenizer(smollm2: Tokenizer, texts: list[str]):
    rows = texts[:400:4]
    alone = [smollm2.encode(text, truncation=True, max_length=5 + place % 7) for place, text in enumerate(rows)]
    with ThreadPoolExecutor(4) as pool:
        places = range(len(rows))
        together = pool.map(
            lambda place: smollm2.encode(rows[place], truncation=True, max_length=5 + place % 7), places
        )
        assert list(together) == alone


def test_what_gguf_gives_is_saved_for_transformers(small: Tokenizer, tmp_path: Path, texts: list[str]):
    transformers = pytest.importorskip("transformers")
    for name, tokenizer in (("bytes", small), ("pieces", build(pieces()))):
        tokenizer.save_pretrained(tmp_path / name)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        rows = ["ab a<x>é<|a|>", *texts[::100]]
        assert tokenizer(rows)["input_ids"] == theirs(rows)["input_ids"]
        assert tokenizer.special_tokens_map == theirs.special_tokens_map
    with pytest.raises(ArgumentError, match="`save_directory`"):
        small.save_pretrained(tmp_path / "bytes" / "tokenizer.json")


def test_smollm2_is_saved_for_transformers(smollm2: Tokenizer, tmp_path: Path, texts: list[str]):
    transformers = pytest.importorskip("transformers")
    smollm2.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert smollm2(texts[::10])["input_ids"] == theirs(texts[::10])["input_ids"]
    assert theirs.chat_template == smollm2.chat_template


def test_places_in_text_and_tokens_are_those_of_transformers(small: Tokenizer, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    small.save_pretrained(tmp_path)
    text = "ab cab 12"
    ours, theirs = small(text), transformers.AutoTokenizer.from_pretrained(tmp_path)(text)
    for name in ("token_to_chars", "token_to_word", "word_to_tokens", "word_to_chars", "char_to_word"):
        for place in (1, 2):
            assert getattr(ours, name)(place) == getattr(theirs, name)(place), name
            assert getattr(ours, name)(0, place) == getattr(theirs, name)(0, place), name
    assert ours.sequence_ids() == theirs.sequence_ids()
    assert small.vocab == small.get_vocab()


def test_a_prefix_space_is_refused_where_bytes_are_cut_in_several_steps():
    tokenizer = build(metadata(pre="smollm"))
    with pytest.raises(NotSupportedError, match="Put the space into the text"):
        tokenizer.add_prefix_space = True
    tokenizer.add_prefix_space = False
    assert not tokenizer.add_prefix_space
