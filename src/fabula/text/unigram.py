"""SentencePiece's unigram model out of a GGUF file: the cut of each word whose pieces are likeliest together.

Kudo 2018, "Subword regularization", section 3.2; the tokenizers library finds the cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram

from fabula.text.sentencepiece import SPACE

BLANKS = 100  # that T5 has: <extra_id_0> is what a prompt leaves out first
PADDING = re.compile(r"\[PAD\d+\]")  # what fills a vocabulary up to the rows of a table


def build(
    tokens: Sequence[str],
    scores: Sequence[float],
    unknown: int,
    charsmap: Iterable[int] | None,
    bounded: bool,
    add_space_prefix: bool,
) -> Tokenizer:
    """The tokenizer of `tokens`, token id = place, without its added tokens but the unknown one.

    `scores` are log-probabilities; `unknown` is the id of what has no piece; `charsmap` the bytes of SentencePiece's
    own table of normal forms; `bounded`: white space around words counts as one space, or none at a text's ends.
    """
    tokenizer = Tokenizer(Unigram(list(zip(tokens, scores, strict=True)), unk_id=unknown, byte_fallback=False))
    table = bytes(charsmap or ())
    if table:
        tokenizer.normalizer = normalizers.Precompiled(table)
    prefix = "always" if add_space_prefix and bounded else "first" if add_space_prefix else "never"
    words = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=prefix, split=True)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "removed"), words]) if bounded else words
    )
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme=prefix, split=True)
    tokenizer.add_special_tokens([AddedToken(tokens[unknown], special=True, normalized=False)])
    return tokenizer


def named_blanks(tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """The tokens with T5's blanks by their names, and these names.

    llama.cpp's converter names them as it names what only fills the table. They are the first of those, the last blank
    first; where there are fewer of those, as in mT5, there are no blanks.
    """
    named = list(tokens)
    places = [place for place, token in enumerate(tokens) if PADDING.fullmatch(token)][:BLANKS]
    places = places if len(places) == BLANKS else []
    for count, place in enumerate(places):
        named[place] = f"<extra_id_{BLANKS - 1 - count}>"
    return named, [named[place] for place in places]
