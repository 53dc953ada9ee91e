"""T5's tokenizer out of GGUF metadata: the ids of SentencePiece itself, and of transformers."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from fabula.errors import ModelFileError
from fabula.text.files import TokenizerFiles
from fabula.text.tokenizer import Tokenizer

from .conftest import DATA

sentencepiece = pytest.importorskip("sentencepiece")
FILLING = 128  # rows of T5's table that have no piece; the first hundred are its blanks
SPECIAL = ("<pad>", "</s>", "<unk>", "<extra_id_")
NEXT_LINE = "\x85"  # white space to the tokenizers library, a character like others to SentencePiece


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    """SentencePiece with pieces of its own."""
    prefix = tmp_path_factory.mktemp("pieces") / "spiece"
    sentencepiece.SentencePieceTrainer.train(
        input=str(DATA / "text_prose.txt"), model_prefix=str(prefix), vocab_size=900, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")


@pytest.fixture(scope="module")
def metadata(processor) -> dict[str, Any]:
    """What llama.cpp's converter writes for it."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(processor.serialized_model_proto())
    size = len(proto.pieces)
    values = {
        "model": "t5",
        "tokens": [*(piece.piece for piece in proto.pieces), *(f"[PAD{size + i}]" for i in range(FILLING))],
        "scores": [*(piece.score for piece in proto.pieces), *[-1000.0] * FILLING],
        "token_type": [*(piece.type for piece in proto.pieces), *[5] * FILLING],
        "precompiled_charsmap": list(proto.normalizer_spec.precompiled_charsmap),
        "remove_extra_whitespaces": proto.normalizer_spec.remove_extra_whitespaces,
        "add_space_prefix": proto.normalizer_spec.add_dummy_prefix,
        "eos_token_id": 1,
        "padding_token_id": 0,
        "unknown_token_id": 2,
        "add_bos_token": False,
        "add_eos_token": True,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in values.items()}


def read(metadata: dict[str, Any], **other: Any) -> Tokenizer:
    changed = {f"tokenizer.ggml.{name}": value for name, value in other.items()}
    return Tokenizer.from_files(TokenizerFiles(gguf={**metadata, **changed}, source="model.gguf"))


def test_ids_are_those_of_sentencepiece(processor, metadata, texts):
    """Where no marks stand behind letters, which the tokenizers library brings into a normal form with them."""
    tokenizer = read(metadata)
    plain = [
        text
        for text in texts
        if unicodedata.is_normalized("NFKC", text) and "▁" not in text and not any(name in text for name in SPECIAL)
    ]
    assert len(plain) > 8000
    assert tokenizer(plain, add_special_tokens=False)["input_ids"] == processor.encode(plain)
    rows = [row for row in processor.encode(plain) if tokenizer.unk_token_id not in row]
    assert len(rows) > 100
    assert tokenizer.batch_decode(rows) == processor.decode(rows)


def test_ids_are_those_of_transformers(metadata, texts):
    t5 = pytest.importorskip("transformers.models.t5.tokenization_t5")
    tokenizer = read(metadata)
    tokens, scores = (metadata[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores"))
    count = len(tokens) - FILLING
    reference = t5.T5Tokenizer(
        vocab=list(zip(tokens[:count], scores, strict=False)) + [(f"<extra_id_{99 - i}>", 0.0) for i in range(100)],
        _spm_precompiled_charsmap=bytes(metadata["tokenizer.ggml.precompiled_charsmap"]),
    )
    compared = [text for text in texts if NEXT_LINE not in text]
    compared += ["The <extra_id_0> walks in <extra_id_1>  park</s>", "<extra_id_99>"]
    assert len(compared) > 11_000
    assert tokenizer(compared)["input_ids"] == reference(compared)["input_ids"]
    assert (len(tokenizer), tokenizer.vocab_size) == (len(reference), reference.vocab_size)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.bos_token) == (
        0,
        1,
        2,
        None,
    )


def test_what_only_fills_the_table_is_no_token(metadata):
    tokenizer = read(metadata)
    last = len(tokenizer) - 1
    assert (tokenizer.convert_ids_to_tokens(last), tokenizer.convert_tokens_to_ids("<extra_id_0>")) == (
        "<extra_id_0>", last,
    )  # fmt: skip
    tokens = metadata["tokenizer.ggml.tokens"]
    size = len(tokens) - FILLING
    few = {name: metadata[f"tokenizer.ggml.{name}"][: size + 12] for name in ("tokens", "scores", "token_type")}
    assert len(read(metadata, **few)) == size  # too few for blanks


def test_white_space_counts_where_the_file_says_so(metadata):
    text = " two  spaces "
    assert read(metadata).decode(read(metadata)(text)["input_ids"][:-1]) == "two spaces"
    loose = read(metadata, remove_extra_whitespaces=False, precompiled_charsmap=[])
    assert "▁▁" in "".join(loose.convert_ids_to_tokens(loose(text)["input_ids"]))


@pytest.mark.parametrize("other", [{"scores": [0.0]}, {"token_type": None, "unknown_token_id": None}])
def test_pieces_without_scores_or_an_unknown_token_are_refused(metadata, other):
    with pytest.raises(ModelFileError, match="must have a score each and one of them be unknown"):
        read(metadata, **other).vocab_size  # noqa: B018  # it is read when first used
