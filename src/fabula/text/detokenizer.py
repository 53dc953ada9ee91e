"""A row's text while it is generated: never half a character, and the pieces add up to the full decode."""

from __future__ import annotations

from copy import copy

from fabula.text.protocol import AnyTokenizer
from fabula.text.token_texts import TextStream, WholeText
from fabula.text.word_pieces import LONGEST_ARTIFACT, clean_up


class Detokenizer:
    """One row: `put` each new id, then `end`; what they give adds up to `tokenizer.decode` of all ids.

    Many rows share one tokenizer; a step costs the same however long the row is.
    """

    def __init__(self, tokenizer: AnyTokenizer, skip_special_tokens: bool = False) -> None:
        texts = tokenizer.token_texts
        self._token_of = tokenizer.backend_tokenizer.id_to_token
        self._skipped = texts.special if skip_special_tokens else frozenset()
        self._stream = _cleaned(tokenizer) if tokenizer.cleans_up() else texts.start()

    def put(self, token_id: int) -> str:
        """The text that is sure now that `token_id` is there; "" while a character is incomplete."""
        token = self._token_of(int(token_id))
        if token is None or token in self._skipped:
            return ""
        return self._stream.put(token)

    def fork(self) -> Detokenizer:
        """The same text so far, to be continued otherwise."""
        twin = copy(self)
        twin._stream = self._stream.fork()
        return twin

    def end(self) -> str:
        """What was still held; incomplete characters are U+FFFD."""
        return self._stream.end()


def _cleaned(tokenizer: AnyTokenizer) -> TextStream:
    """A stream for tokenizers that clean up spaces, which may take back a few characters at the end."""
    return WholeText(lambda tokens: clean_up(tokenizer.convert_tokens_to_string(tokens)), margin=LONGEST_ARTIFACT)
