"""Pieces of text come as soon as their characters are whole, and add up to the whole decode."""

import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula.generation.results.pieces import DecodedPieces, pieces_of
from fabula.generation.results.streamers import TextIteratorStreamer
from fabula.text.detokenizer import Detokenizer
from fabula.text.files import TokenizerFiles
from fabula.text.tokenizer import Tokenizer
from tests.generation.byte_tokenizer import Bytes

TOKENIZER = Bytes()
MANY = settings(deadline=None, max_examples=50)


class TestPieces:
    @MANY
    @given(st.text())
    def test_add_up_to_the_whole_decode(self, text):
        pieces = DecodedPieces(TOKENIZER)
        parts = [pieces.put(one) for one in TOKENIZER.encode(text)]
        assert "".join(parts) + pieces.end() == text

    @MANY
    @given(st.binary())
    def test_add_up_for_broken_text_too(self, data):
        pieces = DecodedPieces(TOKENIZER)
        assert "".join([pieces.put(one) for one in data]) + pieces.end() == TOKENIZER.decode(data)

    @MANY
    @given(st.text(st.characters(blacklist_characters="\ufffd", blacklist_categories=["Cs"]), min_size=1))
    def test_come_with_the_last_byte_of_their_character(self, text):
        pieces = DecodedPieces(TOKENIZER)
        for character in text:
            *first, last = TOKENIZER.encode(character)
            assert [pieces.put(one) for one in first] == [""] * len(first) and pieces.put(last) == character

    def test_begin_anew_after_the_end(self):
        pieces = DecodedPieces(TOKENIZER)
        assert pieces.put(0xE4) == "" and pieces.end() == "\ufffd" and pieces.end() == "" and pieces.put(65) == "A"

    def test_keep_the_space_of_tokenizers_that_strip_it_at_the_start(self):
        class Words:
            def decode(self, ids):
                return "".join(" ab"[:2] if one == 0 else " cd" for one in ids).lstrip()

        pieces = DecodedPieces(Words())
        assert [pieces.put(one) for one in (0, 1, 0)] == ["a", " cd", " a"]


def byte_level():
    """One of our own tokenizers, with a token for each byte and a special one."""
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE({one: index for index, one in enumerate(sorted(alphabet))}, [])
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    return Tokenizer.from_files(TokenizerFiles(tokenizer_json=backend.to_str()))


OURS = byte_level()


class TestOurTokenizers:
    def test_stream_by_the_detokenizer(self):
        assert isinstance(pieces_of(OURS, skip_special_tokens=True), Detokenizer)
        assert isinstance(pieces_of(OURS, clean_up_tokenization_spaces=True), DecodedPieces)
        assert isinstance(pieces_of(TOKENIZER), DecodedPieces)

    @MANY
    @given(st.lists(st.integers(0, 256), max_size=30), st.booleans())
    def test_give_the_whole_decode_either_way(self, ids, skip):
        expected = OURS.decode(ids, skip_special_tokens=skip)
        for pieces in (pieces_of(OURS, skip_special_tokens=skip), DecodedPieces(OURS, skip_special_tokens=skip)):
            assert "".join([pieces.put(one) for one in ids]) + pieces.end() == expected

    def test_are_streamed_to_a_reader(self):
        streamer = TextIteratorStreamer(OURS, skip_prompt=True, skip_special_tokens=True)
        streamer.put([OURS("Bonjour")["input_ids"]])
        for one in [*OURS("héllo 你好")["input_ids"], 256]:
            streamer.put([one])
        streamer.end()
        assert list(streamer) == list("héllo 你好")
