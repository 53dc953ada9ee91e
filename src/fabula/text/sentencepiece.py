"""SentencePiece-style BPE out of a GGUF file: tokens with scores, "▁" for a space, bytes for what has no token.

SentencePiece merges the pair whose union scores best; the tokenizers library merges by a list of pairs. The list is
every way to cut a token into two tokens, best union first, so both give the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

SPACE = "\u2581"


def build(
    tokens: Sequence[str],
    scores: Sequence[float] | None,
    merges: Sequence[str] | None,
    text_tokens: frozenset[int] | None,
    given_tokens: frozenset[int],
    unknown: str | None,
    add_space_prefix: bool,
) -> Tokenizer:
    """The tokenizer of `tokens`, token id = place, without its added tokens.

    `text_tokens` are the ids that text can be merged into (None: all), `given_tokens` those that the file's author
    defined beside the learned ones: they come before all learned ones, as SentencePiece never cuts them.
    """
    spelled = [SPACE * len(token) if token.isspace() and not token.strip(" ") else token for token in tokens]
    vocabulary = {token: place for place, token in enumerate(spelled)}
    if merges is None:
        pairs = _pairs(_ranked(spelled, scores, text_tokens, given_tokens), vocabulary)
    else:
        pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    model = BPE(vocab=vocabulary, merges=pairs, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    return _with_spaces(Tokenizer(model), add_space_prefix)


def _with_spaces(tokenizer: Tokenizer, add_space_prefix: bool) -> Tokenizer:
    """`tokenizer`, writing spaces as "▁" and reading them back; with a prefix, text gets one space in front."""
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if add_space_prefix:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="first", split=False)
        steps.append(decoders.Strip(content=" ", left=1))
    else:
        tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def _ranked(
    tokens: list[str], scores: Sequence[float] | None, text_tokens: frozenset[int] | None, given: frozenset[int]
) -> list[str]:
    """The tokens that merging may make, best first: given ones in the file's order, then by falling score."""
    learned = [place for place in range(len(tokens)) if place not in given]
    if text_tokens is not None:
        learned = [place for place in learned if place in text_tokens]
    if scores is not None:
        falling = [scores[place] for place in learned]
        if any(left < right for left, right in pairwise(falling)):
            learned.sort(key=lambda place: -scores[place])
    return [tokens[place] for place in (*sorted(given), *learned)]


def _pairs(ranked: list[str], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every cut of every token into two tokens; of one token's cuts the longest left part comes first."""
    return [
        (token[:middle], token[middle:])
        for token in ranked
        for middle in range(len(token) - 1, 0, -1)
        if token[middle:] in vocabulary and token[:middle] in vocabulary
    ]
