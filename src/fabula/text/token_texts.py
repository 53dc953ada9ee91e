"""How one token after another becomes text, read from a tokenizer's decoder: what is sure is given, the rest is held.

Three ways cover the decoders there are. Each is exact: what `put` and `end` give adds up to the decoder's own text.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol

import tokenizers

from fabula.text.byte_level import byte_alphabet


class TextStream(Protocol):
    """One row's text while it is made."""

    def put(self, token: str) -> str: ...  # text that is sure now

    def end(self) -> str: ...  # what was still held

    def fork(self) -> TextStream: ...  # the same text once more, to be continued otherwise


@dataclass(frozen=True)
class TokenTexts:
    """What a tokenizer's decoder does, for any number of rows."""

    start: Callable[[], TextStream]  # a new row
    token_bytes: Callable[[str], bytes]  # what a token alone stands for; may be half a character
    special: frozenset[str]  # the tokens that `skip_special_tokens` skips


def read_token_texts(backend: tokenizers.Tokenizer) -> TokenTexts:
    """The way of `backend`'s decoder."""
    special = frozenset(token.content for token in backend.get_added_tokens_decoder().values() if token.special)
    steps = _steps(backend.decoder)
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        letters = {letter: byte for byte, letter in byte_alphabet().items()}
        return TokenTexts(lambda: ByteLevelText(letters), lambda token: spelled_bytes(token, letters), special)
    fallback = _read_fallback(steps, kinds)
    if fallback is not None:
        return TokenTexts(lambda: ByteFallbackText(fallback), fallback.token_bytes, special)

    def decode(tokens: list[str]) -> str:
        return " ".join(tokens) if backend.decoder is None else backend.decoder.decode(tokens)

    return TokenTexts(lambda: WholeText(decode), lambda token: decode([token]).encode(), special)


def _steps(decoder: Any) -> list[dict[str, Any]]:
    """The decoder's steps, as the library describes them."""
    if decoder is None:
        return []
    state = json.loads(decoder.__getstate__())
    return state["decoders"] if state["type"] == "Sequence" else [state]


def spelled_bytes(token: str, letters: Mapping[str, int]) -> bytes:
    """The bytes that a token of the byte alphabet spells; a token with any other character is text."""
    try:
        return bytes([letters[letter] for letter in token])
    except KeyError:
        return token.encode()


class ByteLevelText:
    """Bytes to text: half a character is held, bytes that are no text become U+FFFD as they do in one piece."""

    def __init__(self, letters: Mapping[str, int]) -> None:
        self._letters = letters
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def put(self, token: str) -> str:
        return self._decoder.decode(spelled_bytes(token, self._letters))

    def end(self) -> str:
        return self._decoder.decode(b"", final=True)

    def fork(self) -> ByteLevelText:
        twin = ByteLevelText(self._letters)
        twin._decoder.setstate(self._decoder.getstate())
        return twin


@dataclass(frozen=True)
class Fallback:
    """A decoder of SentencePiece's kind."""

    replacements: tuple[tuple[str, str], ...]  # done in each token: "▁" to " "
    strip: str  # this character goes from the start of the text
    strip_count: int  # at most so often

    def token_bytes(self, token: str) -> bytes:
        """What a token alone stands for."""
        text = self.text(token)
        byte = _byte(text)
        return text.encode() if byte is None else bytes([byte])

    def text(self, token: str) -> str:
        """The token after its replacements."""
        for old, new in self.replacements:
            token = token.replace(old, new)
        return token


def _read_fallback(steps: list[dict[str, Any]], kinds: list[str]) -> Fallback | None:
    """The steps Replace..., ByteFallback, Fuse and perhaps Strip as one object; None for any other decoder."""
    count = next((place for place, kind in enumerate(kinds) if kind != "Replace"), len(kinds))
    head, tail = steps[:count], steps[count:]
    strip: dict[str, Any] = tail.pop() if kinds[-1:] == ["Strip"] else {"content": " ", "start": 0, "stop": 0}
    plain = all("String" in step["pattern"] for step in head) and strip["stop"] == 0
    if [step["type"] for step in tail] != ["ByteFallback", "Fuse"] or not plain:
        return None
    replacements = tuple((step["pattern"]["String"], step["content"]) for step in head)
    return Fallback(replacements, strip["content"], strip["start"])


def _byte(token: str) -> int | None:
    """The byte that `<0xE2>` names."""
    if len(token) != 6 or not token.startswith("<0x") or not token.endswith(">"):
        return None
    try:
        return int(token[3:5], 16)
    except ValueError:
        return None


class ByteFallbackText:
    """Tokens of text, and runs of byte tokens between them.

    A run is text if all of it is valid UTF-8, otherwise each byte is U+FFFD: so it is held until another token ends it.
    """

    def __init__(self, fallback: Fallback) -> None:
        self._fallback = fallback
        self._run = bytearray()
        self._to_strip = fallback.strip_count

    def put(self, token: str) -> str:
        text = self._fallback.text(token)
        byte = _byte(text)
        if byte is not None:
            self._run.append(byte)
            return ""
        return self._stripped(self._run_text() + text)

    def end(self) -> str:
        return self._stripped(self._run_text())

    def _run_text(self) -> str:
        run, self._run = self._run, bytearray()
        try:
            return run.decode()
        except UnicodeDecodeError:
            return "\ufffd" * len(run)

    def _stripped(self, text: str) -> str:
        while self._to_strip and text.startswith(self._fallback.strip):
            text = text[1:]
            self._to_strip -= 1
        if text:
            self._to_strip = 0
        return text

    def fork(self) -> ByteFallbackText:
        twin = copy(self)
        twin._run = self._run.copy()
        return twin


class WholeText:
    """Any other decoder: all tokens are decoded at each step, and what the last token did not change is given.

    The cost of a step grows with the row. `margin` characters more are held where later text may still change them.
    """

    def __init__(self, decode: Callable[[list[str]], str], margin: int = 0) -> None:
        self._decode = decode
        self._margin = margin
        self._tokens: list[str] = []
        self._last = ""
        self._given = 0

    def put(self, token: str) -> str:
        self._tokens.append(token)
        text = self._decode(self._tokens)
        sure = len(_common(self._last, text).rstrip("\ufffd")) - self._margin
        self._last = text
        piece = text[self._given : max(sure, self._given)]
        self._given += len(piece)
        return piece

    def end(self) -> str:
        piece = self._last[self._given :]
        self._given = len(self._last)
        return piece

    def fork(self) -> WholeText:
        twin = copy(self)
        twin._tokens = self._tokens.copy()
        return twin


def _common(left: str, right: str) -> str:
    """What both texts start with."""
    shortest = min(len(left), len(right))
    length = next((place for place in range(shortest) if left[place] != right[place]), shortest)
    return left[:length]
