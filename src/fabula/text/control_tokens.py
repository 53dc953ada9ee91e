"""Control tokens that a user writes into a message are text: only those that the chat template writes are tokens.

They are put between two private characters before the template is rendered. What stands between those in its text is
encoded without looking for added tokens.
"""

from __future__ import annotations

from typing import Any

from fabula.errors import ArgumentError
from fabula.text.protocol import AnyTokenizer

_OPEN, _CLOSE = "\U000f0000", "\U000f0001"


def control_ids(tokenizer: AnyTokenizer, template: str) -> frozenset[int]:
    """The special tokens' ids, and those of other added tokens that the template writes (but for white space)."""
    return frozenset(
        token_id
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if token.special or (token.content.strip() and token.content in template)
    )


def mark(tokenizer: AnyTokenizer, control: frozenset[int], value: Any) -> Any:
    """`value` with the control tokens in its texts marked; keys of objects stay as they are."""
    if isinstance(value, str):
        return _marked(tokenizer, control, value.replace(_OPEN, "").replace(_CLOSE, ""))
    if isinstance(value, dict):
        return {key: mark(tokenizer, control, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mark(tokenizer, control, item) for item in value]
    return value


def _marked(tokenizer: AnyTokenizer, control: frozenset[int], text: str) -> str:
    """The tokenizer itself says where it would see a control token."""
    encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    spans = [span for token_id, span in zip(encoding.ids, encoding.offsets, strict=True) if token_id in control]
    parts, end = [], 0
    for start, stop in spans:
        parts += [text[end:start], _OPEN, text[start:stop], _CLOSE]
        end = stop
    return "".join((*parts, text[end:]))


def encode_marked(tokenizer: AnyTokenizer, control: frozenset[int], text: str) -> list[int]:
    """The ids of a rendered chat; what is marked is text.

    A mark that the template cut from its partner is dropped, and still parts the text. Raises ArgumentError where the
    vocabulary has no other way to write a control token.
    """
    ids: list[int] = []
    for place, (piece, plain) in enumerate(_pieces(text)):
        added = _continue(tokenizer, piece, plain) if place else tokenizer.encode(piece, add_special_tokens=False)
        if plain and control.intersection(added):
            raise ArgumentError(
                f"`sanitize_control_tokens` must find other tokens for {piece!r:.80}, and the vocabulary has none."
            )
        ids += added
    return ids


def _pieces(text: str) -> list[tuple[str, bool]]:
    """The text between marks, in order, and whether it stood inside a pair; the first is outside."""
    first, *rest = text.split(_OPEN)
    pieces = [(part, False) for part in first.split(_CLOSE)]
    for part in rest:
        inside, *outside = part.split(_CLOSE)
        pieces.append((inside, bool(outside)))
        pieces += [(piece, False) for piece in outside]
    return [pieces[0], *((piece, plain) for piece, plain in pieces[1:] if piece)]


def _continue(tokenizer: AnyTokenizer, piece: str, plain: bool) -> list[int]:
    """The ids of a piece that is not at the start, where SentencePiece would put a space before it."""
    line = _ids(tokenizer, "\n", plain)
    ids = _ids(tokenizer, "\n" + piece, plain)
    return ids[len(line) :] if ids[: len(line)] == line else _ids(tokenizer, piece, plain)


def _ids(tokenizer: AnyTokenizer, text: str, plain: bool) -> list[int]:
    """The ids of `text`; plain: without looking for added tokens."""
    backend = tokenizer.backend_tokenizer
    if not plain:
        return backend.encode(text, add_special_tokens=False).ids
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    parts = [text]
    if backend.pre_tokenizer is not None:
        parts = [part for part, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    return [token.id for part in parts for token in backend.model.tokenize(part)]
