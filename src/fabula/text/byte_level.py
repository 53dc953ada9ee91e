"""Byte-level BPE out of a GGUF file: a vocabulary spelled in the byte alphabet, and its merges in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE

from fabula.errors import ModelFileError
from fabula.text.pre_tokenizers import Cut, composer, cutter


@cache
def byte_alphabet() -> Mapping[int, str]:
    """The printable character that stands for each byte (Radford et al. 2019, the code of GPT-2).

    Printable Latin-1 bytes stand for themselves; the other 68 take the characters from U+0100 on, in order.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(rest)}


def build(tokens: Sequence[str], whole: frozenset[int], merges: Sequence[str], cut: Cut, source: str) -> Tokenizer:
    """The tokenizer of `tokens`, token id = place, without its added tokens.

    `whole` are the ids of control and user-defined tokens, which are spelled as text and not in the byte alphabet.
    """
    model = BPE(vocab=_spelled(tokens, whole), merges=_pairs(merges, source), ignore_merges=cut.whole_words)
    tokenizer = Tokenizer(model)
    normalizer = composer(cut)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = cutter(cut)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _spelled(tokens: Sequence[str], whole: frozenset[int]) -> dict[str, int]:
    """Token to id. Some files hold a few tokens as plain text; those are spelled in the byte alphabet here."""
    alphabet = byte_alphabet()
    letters = set(alphabet.values())
    vocabulary = {token: place for place, token in enumerate(tokens)}
    if set("".join(tokens)) <= letters:
        return vocabulary
    for place, token in enumerate(tokens):
        if place not in whole and not letters.issuperset(token):
            del vocabulary[token]
            vocabulary["".join(alphabet[byte] for byte in token.encode())] = place
    return vocabulary


def _pairs(merges: Sequence[str], source: str) -> list[tuple[str, str]]:
    """`"Ġ t"` as `("Ġ", "t")`, in order."""
    pairs = [tuple(merge.split(" ")) for merge in merges]
    wrong = next((place for place, pair in enumerate(pairs) if len(pair) != 2), None)
    if wrong is not None:
        raise ModelFileError(
            f"`tokenizer.ggml.merges[{wrong}]` of {source} must be two tokens with a space between, got "
            f"{merges[wrong]!r:.80}. The file is damaged: fetch it again."
        )
    return pairs  # type: ignore[return-value]
