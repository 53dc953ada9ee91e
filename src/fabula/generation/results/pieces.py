"""Text out of token ids one by one, with any tokenizer that has decode()."""

from __future__ import annotations

from copy import copy
from typing import Any, Protocol

from fabula.text.detokenizer import Detokenizer
from fabula.text.tokenizer import Tokenizer

__all__ = ["DecodedPieces", "Pieces", "pieces_of"]

_UNFINISHED = "\ufffd"  # what decoders show for part of a character


class Pieces(Protocol):
    """Takes ids one by one and gives the text that they complete."""

    def put(self, token_id: int) -> str: ...

    def fork(self) -> Pieces: ...

    def end(self) -> str: ...


class DecodedPieces:
    """Decodes a short window of ids twice, without and with the new one; the difference is the piece.

    The window reaches back to the end of the piece before last, so that the decoder sees what joins words.
    """

    def __init__(self, tokenizer: Any, **decode_kwargs: Any) -> None:
        self._tokenizer = tokenizer
        self._decode_kwargs = decode_kwargs
        self._window: list[int] = []
        self._given = 0  # ids at the window's start whose text has been given
        self._given_text = ""

    def put(self, token_id: int) -> str:
        """The text that is whole now; empty while a character is incomplete."""
        self._window.append(int(token_id))
        text = self._decode(self._window)
        if len(text) <= len(self._given_text) or text.endswith(_UNFINISHED):
            return ""
        piece = text[len(self._given_text) :]
        self._window = self._window[self._given :]
        self._given, self._given_text = len(self._window), self._decode(self._window)
        return piece

    def fork(self) -> DecodedPieces:
        """The same text so far, to be continued otherwise."""
        twin = copy(self)
        twin._window = self._window.copy()
        return twin

    def end(self) -> str:
        """What was held back; afterwards a new text begins."""
        piece = self._decode(self._window)[len(self._given_text) :] if len(self._window) > self._given else ""
        self._window, self._given, self._given_text = [], 0, ""
        return piece

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, **self._decode_kwargs)


def pieces_of(tokenizer: Any, **decode_kwargs: Any) -> Pieces:
    """The pieces of one row's text, as `tokenizer.decode(ids, **decode_kwargs)` would have it."""
    if isinstance(tokenizer, Tokenizer) and decode_kwargs.keys() <= {"skip_special_tokens"}:
        return Detokenizer(tokenizer, **decode_kwargs)
    return DecodedPieces(tokenizer, **decode_kwargs)
