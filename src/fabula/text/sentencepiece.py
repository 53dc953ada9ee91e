"""SentencePiece-style BPE out of a GGUF file: tokens with scores, "▁" for a space, bytes for what has no token.

SentencePiece merges the pair whose union scores best; the tokenizers library merges by a list of pairs. The list is
every way to cut a token into two tokens, best union first, so both give the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from fabula.text.cuts import every_cut

SPACE = "\u2581"


def build(
    tokens: Sequence[str],
    scores: Sequence[float] | None,
    merges: Sequence[str] | None,
    learned: np.ndarray,
    given: np.ndarray,
    unknown: str | None,
    add_space_prefix: bool,
) -> Tokenizer:
    """The tokenizer of `tokens`, token id = place, without its added tokens.

    `learned` are the ids that text can be merged into, `given` those that the file's author defined beside them: these
    come before all learned ones, as SentencePiece never cuts them. Both in rising order.
    """
    spelled = [SPACE * len(token) if token.isspace() and not token.strip(" ") else token for token in tokens]
    vocabulary = dict(zip(spelled, range(len(spelled)), strict=True))
    settings: dict[str, Any] = {"vocab": vocabulary, "unk_token": unknown, "fuse_unk": True, "byte_fallback": True}
    if merges is not None:
        pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    else:
        pairs = every_cut(spelled, _ranked(scores, learned, given))
    return _with_spaces(Tokenizer(BPE(merges=pairs, **settings)), add_space_prefix)


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


def _ranked(scores: Sequence[float] | None, learned: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The tokens that merging may make, best first: given ones in the file's order, then by falling score."""
    if scores is not None:
        learned = learned[np.argsort(-np.asarray(scores)[learned], kind="stable")]
    return np.concatenate([given, learned])
