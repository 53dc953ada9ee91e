"""What a tokenizer gives: named rows of numbers, as a dictionary whose entries are attributes too."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from tokenizers import Encoding

from fabula.errors import ArgumentError
from fabula.text.tensors import as_tensors


class CharSpan(NamedTuple):
    """Characters [start, end) of a text."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens [start, end) of a row."""

    start: int
    end: int


class BatchEncoding(UserDict):
    """`input_ids`, `attention_mask` and what else was asked for; `model.generate(**encoding)` takes it as it is."""

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        encoding: Encoding | Sequence[Encoding] | None = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
    ) -> None:
        super().__init__({} if data is None else dict(data))
        self._encodings = [encoding] if isinstance(encoding, Encoding) else encoding
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    def __getattr__(self, name: str) -> Any:
        # `data` is absent while a copy is being unpickled.
        data = self.__dict__.get("data", {})
        if name in data:
            return data[name]
        raise AttributeError(f"BatchEncoding has no `{name}`; it holds {', '.join(data) or 'nothing'}.")

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            return self.data[key]
        if isinstance(key, slice):
            return {name: value[key] for name, value in self.data.items()}
        if self._encodings is None:
            raise KeyError(f"BatchEncoding keys must be names, got {key!r}. Use one of: {', '.join(self.data)}.")
        return self._encodings[key]

    @property
    def shape(self) -> Any:
        """That of `input_ids`, for code that was written for a bare tensor of ids."""
        return self.data["input_ids"].shape

    @property
    def encodings(self) -> Sequence[Encoding] | None:
        """The tokenizers library's own objects, a row each."""
        return self._encodings

    @property
    def is_fast(self) -> bool:
        """Whether `tokens`, `word_ids` and `char_to_token` know the rows."""
        return self._encodings is not None

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a row as the vocabulary spells them."""
        return self._row(batch_index).tokens

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row the number of its word; None for special tokens."""
        return self._row(batch_index).word_ids

    def char_to_token(self, batch_or_char_index: int, char_index: int | None = None) -> int | None:
        """The token that a character of a row's text went into."""
        row, place = _row_and_place(batch_or_char_index, char_index)
        return self._row(row).char_to_token(place)

    def char_to_word(self, batch_or_char_index: int, char_index: int | None = None) -> int | None:
        """The word that a character of a row's text is in."""
        row, place = _row_and_place(batch_or_char_index, char_index)
        return self._row(row).char_to_word(place)

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """Where a token's text is; None for special tokens."""
        row, place = _row_and_place(batch_or_token_index, token_index)
        span = self._row(row).token_to_chars(place)
        return None if span is None else CharSpan(*span)

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The word that a token is of; None for special tokens."""
        row, place = _row_and_place(batch_or_token_index, token_index)
        return self._row(row).token_to_word(place)

    def word_to_tokens(self, batch_or_word_index: int, word_index: int | None = None) -> TokenSpan | None:
        """The tokens of a word."""
        row, place = _row_and_place(batch_or_word_index, word_index)
        span = self._row(row).word_to_tokens(place)
        return None if span is None else TokenSpan(*span)

    def word_to_chars(self, batch_or_word_index: int, word_index: int | None = None) -> CharSpan | None:
        """Where a word is in a row's text."""
        row, place = _row_and_place(batch_or_word_index, word_index)
        span = self._row(row).word_to_chars(place)
        return None if span is None else CharSpan(*span)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row 0, None for special tokens: there are no pairs of texts."""
        return self._row(batch_index).sequence_ids

    def _row(self, place: int) -> Encoding:
        if self._encodings is None:
            raise ArgumentError("This BatchEncoding knows no tokens: it was not made by encoding text. Encode again.")
        return self._encodings[place]

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> Self:
        """Every entry becomes a tensor of "pt", "np", "jax" or "tf"; None leaves them. Raises if rows are ragged."""
        if tensor_type is not None:
            rows = {name: [value] if prepend_batch_axis else value for name, value in self.data.items()}
            self.data = as_tensors(rows, tensor_type)
        return self

    def to(self, device: Any, *, non_blocking: bool = False) -> Self:
        """Moves torch tensors to `device`; whatever has no device stays as it is."""
        for name, value in self.data.items():
            if hasattr(value, "to") and hasattr(value, "is_cuda"):
                self.data[name] = value.to(device=device, non_blocking=non_blocking)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"data": self.data, "_encodings": self._encodings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _row_and_place(first: int, second: int | None) -> tuple[int, int]:
    """Of one index it is a place in the only row; of two, a row and a place in it."""
    return (0, first) if second is None else (first, second)
