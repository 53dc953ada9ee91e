"""What a tokenizer's own parts read of it, so that none of them needs the class that is made of them."""

from __future__ import annotations

from typing import Any, Protocol

import tokenizers
from tokenizers import AddedToken

from fabula.text.encoding import BatchEncoding
from fabula.text.token_texts import TokenTexts


class AnyTokenizer(Protocol):
    """A Tokenizer (text/tokenizer.py), whose docstrings say what each of these is."""

    backend_tokenizer: tokenizers.Tokenizer
    special_tokens: dict[str, str]
    extra_special_tokens: list[str]
    padding_side: str
    truncation_side: str
    model_max_length: int
    chat_template: str | dict[str, str] | None
    clean_up_tokenization_spaces: bool
    model_input_names: list[str]

    @property
    def token_texts(self) -> TokenTexts: ...
    @property
    def special_tokens_map(self) -> dict[str, str]: ...
    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]: ...

    def __call__(self, *texts: Any, **options: Any) -> BatchEncoding: ...
    def encode(self, *texts: Any, **options: Any) -> Any: ...
    def pad(self, *columns: Any, **options: Any) -> BatchEncoding: ...
    def cleans_up(self) -> bool: ...
    def convert_tokens_to_string(self, tokens: list[str]) -> str: ...
