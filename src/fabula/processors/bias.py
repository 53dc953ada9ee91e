"""Biases on the token that would complete a sequence, and bad words, whose bias is -inf."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.errors import ArgumentError
from fabula.processors.arguments import token_ids
from fabula.processors.bias_lists import ListedBias, listed_biases
from fabula.processors.history import last_tokens
from fabula.processors.processor import LogitsProcessor

__all__ = ["NoBadWordsLogitsProcessor", "SequenceBiasLogitsProcessor"]

Sequences = Mapping[tuple[int, ...], float]


class SequenceBiasLogitsProcessor(LogitsProcessor):
    """Adds a sequence's bias to its last token wherever the row ends in the tokens before it.

    `sequence_bias` is {(token, ...): bias} or, as JSON has it, [[[token, ...], bias], ...].
    """

    looks_through = True

    def __init__(self, sequence_bias: Mapping[tuple[int, ...], float] | Sequence[Any]) -> None:
        self._take(_checked(sequence_bias))

    def _take(self, sequences: Sequences) -> None:
        """Sorts sequences by what is looked at and by what is changed: `last` holds each last token once."""
        self.sequence_bias = dict(sequences)
        self.groups = _by_length(sequences)
        last = [sequence[-1] for sequence in sorted(sequences, key=len)]
        self.last, self.places = np.unique(np.array(last, dtype=np.int32), return_inverse=True)

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        if not self.groups:
            return scores
        self._check_vocabulary(scores.shape[-1])
        parts = []
        for prefixes, biases in self.groups:
            ends = last_tokens(xp, context, prefixes.shape[1])[:, None, :]
            matches = xp.all(ends == xp.asarray(prefixes, "int32", like=scores)[None, :, :])
            parts.append(xp.where(matches, xp.asarray(biases, "float32", like=scores)[None, :], 0.0))
        places = xp.asarray(self.places, "int32", like=scores)[None, :]
        last = xp.asarray(self.last, "int32", like=scores)[None, :]
        rows = (scores.shape[0], len(self.places))
        sums = xp.zeros((rows[0], len(self.last)), "float32", like=scores)
        sums = xp.scatter_add(sums, xp.broadcast_to(places, rows), xp.concat(parts))
        columns = xp.broadcast_to(last, tuple(sums.shape))
        found = xp.take_along_axis(scores, columns)
        return xp.scatter_where(scores, columns, sums != 0, found + sums)

    def stack_key(self) -> Hashable:
        return tuple(self.sequence_bias.items())

    @classmethod
    def listed(cls, members: Sequence[Any]) -> tuple[LogitsProcessor, Mapping[str, np.ndarray]]:
        return ListedBias(), listed_biases([{} if member is None else member.sequence_bias for member in members])

    def _check_vocabulary(self, vocabulary: int) -> None:
        outside = [token for sequence in self.sequence_bias for token in sequence if token >= vocabulary]
        if outside:
            raise ArgumentError(
                f"`sequence_bias` must hold tokens in [0, {vocabulary}), got {outside[:5]}. "
                "Take the ids of this model's tokenizer."
            )


class NoBadWordsLogitsProcessor(SequenceBiasLogitsProcessor):
    """Sequences of tokens that must not come; a word that is just an end token is left out."""

    def __init__(self, bad_words_ids: Sequence[Sequence[int]], eos_token_id: Any = None) -> None:
        if not isinstance(bad_words_ids, (list, tuple)) or not bad_words_ids:
            raise ArgumentError(f"`bad_words_ids` must be a list of lists of token ids, got {bad_words_ids!r}.")
        if not all(isinstance(word, (list, tuple)) and word for word in bad_words_ids):
            raise ArgumentError(f"`bad_words_ids` must hold a list of token ids a word, got {bad_words_ids!r}.")
        words = [token_ids("bad_words_ids", word) for word in bad_words_ids]
        ends = () if eos_token_id is None else token_ids("eos_token_id", eos_token_id)
        self._take({word: -float("inf") for word in words if len(word) > 1 or word[0] not in ends})

    def stack_key(self) -> Hashable:
        return super().stack_key()

    @classmethod
    def listed(cls, members: Sequence[Any]) -> tuple[LogitsProcessor, Mapping[str, np.ndarray]]:
        return super().listed(members)


def _checked(sequence_bias: Any) -> dict[tuple[int, ...], float]:
    """Token sequences and biases in either form, checked."""
    pairs = list(sequence_bias.items()) if isinstance(sequence_bias, Mapping) else sequence_bias
    allowed = "a non-empty {(token, ...): bias} or [[[token, ...], bias], ...]"
    try:
        checked = {token_ids("sequence_bias", _sequence(tokens)): float(bias) for tokens, bias in pairs}
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"`sequence_bias` must be {allowed}, got {sequence_bias!r}. {error}") from error
    if not checked or () in checked:
        raise ArgumentError(f"`sequence_bias` must be {allowed}, got {sequence_bias!r}.")
    return checked


def _sequence(tokens: Any) -> list[int]:
    if not isinstance(tokens, (list, tuple)):
        raise TypeError(f"{tokens!r} is no list of token ids.")
    return list(tokens)


def _by_length(sequences: Sequences) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sequences of one length each, the shortest first: prefixes Int["S N-1"], biases Float["S"]."""
    ordered = sorted(sequences.items(), key=lambda pair: len(pair[0]))
    groups = []
    for length, members in groupby(ordered, key=lambda pair: len(pair[0])):
        pairs = list(members)
        tokens = np.array([sequence for sequence, _ in pairs], dtype=np.int32).reshape(len(pairs), length)
        groups.append((tokens[:, :-1], np.array([bias for _, bias in pairs], dtype=np.float32)))
    return groups
