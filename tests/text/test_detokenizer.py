"""Streamed text: never half a character, and the pieces add up to the full decode, whatever the ids are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from tokenizers import decoders

from fabula.hub.files import read_tokenizer
from fabula.text.detokenizer import Detokenizer
from fabula.text.tokenizer import Tokenizer

from .trained import KINDS, write


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    return {kind: load(write(kind, tmp_path_factory.mktemp(kind))) for kind in KINDS}


def load(directory: Path) -> Tokenizer:
    return Tokenizer.from_files(read_tokenizer(directory, "trained"))


def stream(tokenizer: Tokenizer, ids: list[int], skip: bool) -> list[str]:
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip)
    return [*(detokenizer.put(token_id) for token_id in ids), detokenizer.end()]


def random_ids(size: int, often: range = range(0)) -> some.SearchStrategy[list[int]]:
    """Ids below `size`, those in `often` in every other place."""
    ids = some.integers(0, size - 1)
    return some.lists(some.one_of(ids, some.sampled_from(often)) if often else ids, max_size=40)


@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(max_examples=150, deadline=None)
@given(data=some.data(), skip=some.booleans())
def test_pieces_add_up_to_the_decoded_text(trained, kind: str, data, skip: bool):
    tokenizer = trained[kind]
    often = range(3, 259) if kind == "sentencepiece" else range(256)
    ids = data.draw(random_ids(len(tokenizer), often))
    assert "".join(stream(tokenizer, ids, skip)) == tokenizer.decode(ids, skip_special_tokens=skip)


@settings(max_examples=150, deadline=None)
@given(text=some.text(max_size=30), kind=some.sampled_from(["byte-level", "sentencepiece"]))
def test_no_piece_holds_half_a_character(trained, text: str, kind: str):
    tokenizer = trained[kind]
    pieces = stream(tokenizer, tokenizer.encode(text), skip=True)
    assert "\ufffd" not in "".join(pieces).replace("\ufffd" * text.count("\ufffd"), "") or "\ufffd" in text


@pytest.mark.parametrize("skip", [True, False])
def test_real_tokenizers_stream_what_they_decode(smollm2: Tokenizer, gemma: Tokenizer, texts: list[str], skip: bool):
    for tokenizer in (smollm2, gemma):
        for text in texts[::25]:
            ids = tokenizer.encode(text)
            assert "".join(stream(tokenizer, ids, skip)) == tokenizer.decode(ids, skip_special_tokens=skip)
            cut = ids[1::2]  # every other token: broken characters, and bytes that are no text
            assert "".join(stream(tokenizer, cut, skip)) == tokenizer.decode(cut, skip_special_tokens=skip)


def test_text_is_shown_as_soon_as_it_is_sure(smollm2: Tokenizer):
    ids = smollm2.encode("Hello wide world")
    assert stream(smollm2, ids, skip=True) == ["Hello", " wide", " world", ""]


def test_a_character_is_held_until_it_is_whole(smollm2: Tokenizer):
    pieces = stream(smollm2, smollm2.encode("a🧙b"), skip=True)
    assert [piece for piece in pieces if piece] == ["a", "🧙", "b"]
    assert len(pieces) > 5


def test_a_run_of_bytes_is_held_until_it_ends_as_a_later_byte_may_spoil_it(gemma: Tokenizer):
    run = gemma.convert_tokens_to_ids(["<0xE2>", "<0x82>", "<0xAC>"])
    after, bad = gemma.convert_tokens_to_ids(["a", "<0xFF>"])
    assert stream(gemma, [*run, after], skip=True) == ["", "", "", "€a", ""]
    assert stream(gemma, [*run, bad, after], skip=True) == ["", "", "", "", "\ufffd" * 4 + "a", ""]
    assert stream(gemma, run, skip=True) == ["", "", "", "€"]


def test_tokens_stand_for_bytes(smollm2: Tokenizer, gemma: Tokenizer):
    for tokenizer in (smollm2, gemma):
        texts = tokenizer.token_texts
        tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode("é🧙 x", add_special_tokens=False))
        assert b"".join(texts.token_bytes(token) for token in tokens) == "é🧙 x".encode()


@pytest.mark.parametrize("decoder", [
    None, decoders.Metaspace(prepend_scheme="never"), decoders.BPEDecoder(), decoders.CTC(), decoders.WordPiece(),
    decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()]),
], ids=str)  # fmt: skip
def test_other_decoders_add_up_too(tmp_path: Path, decoder):
    tokenizer = load(write("unigram", tmp_path))
    tokenizer.backend_tokenizer.decoder = decoder
    ids = tokenizer.encode("Call me Ishmael. Some years ago, never mind how long!")
    assert "".join(stream(tokenizer, ids, skip=True)) == tokenizer.decode(ids, skip_special_tokens=True)
