"""SentencePiece-style BPE out of a GGUF file: tokens with scores, "▁" for a space, bytes for what has no token.

SentencePiece merges the pair whose union scores best; the tokenizers library merges by a list of pairs. The list is
every way to cut a token into two tokens, best union first, so both give the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from fabula.text.cuts import every_cut, likely_cuts

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
        model = BPE(merges=[(left, right) for left, _, right in (merge.partition(" ") for merge in merges)], **settings)
    else:
        model = _derived(spelled, _ranked(scores, learned, given), settings)
    return _with_spaces(Tokenizer(model), add_space_prefix)


def _derived(tokens: Sequence[str], order: np.ndarray, settings: Mapping[str, Any]) -> BPE:
    """The model with every cut as a merge. It takes no merge of what are no tokens, so likely cuts are tried first."""
    try:
        return BPE(merges=likely_cuts(tokens, order), **settings)
    except Exception:  # the tokenizers library raises bare exceptions
        return BPE(merges=every_cut(tokens, order), **settings)


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
