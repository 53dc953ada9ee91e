"""What a generated text must contain: a phrase, one of several phrases, or what a class of the user's asks for.

The names and methods are those of transformers 4, so that a Constraint written for it works. One departure: after
`reset` a PhrasalConstraint waits for its first token again; there it waits for its second.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from fabula.errors import ArgumentError

__all__ = ["Constraint", "DisjunctiveConstraint", "PhrasalConstraint", "checked_token", "constraints_of"]

Step = tuple[bool, bool, bool]  # whether the token was a step forward, completed the constraint, set it back


class Constraint(ABC):
    """Something that a text must contain, and how much of it the text ends with.

    A subclass sets `seqlen`, the most steps that it takes, and calls `test` when it is made.
    """

    seqlen: int

    def test(self) -> None:
        """Raises ArgumentError unless the tokens that `advance` names complete it, in no more than 10,000 steps."""
        probe = self.copy()
        for _ in range(10_000):
            named = probe.advance()
            if named is None or named == []:
                break
            token = named[0] if isinstance(named, list) else named
            if not probe.does_advance(token):
                break
            if probe.update(token)[1]:
                return
        raise ArgumentError(
            f"`{type(self).__name__}` must be completed by the tokens that `advance` names, got no end of it. "
            "Let `does_advance` accept them and `update` count them."
        )

    @abstractmethod
    def advance(self) -> int | list[int] | None:
        """The token, or the tokens, any of which is a step forward; None: it is completed."""

    @abstractmethod
    def does_advance(self, token_id: int) -> bool:
        """Whether a token is a step forward."""

    @abstractmethod
    def update(self, token_id: int) -> Step:
        """Takes the token; one that is no step forward sets it back."""

    @abstractmethod
    def reset(self) -> None:
        """Forgets all steps."""

    @abstractmethod
    def remaining(self) -> int:
        """How many steps are missing."""

    @abstractmethod
    def copy(self, stateful: bool = False) -> Constraint:
        """Another of its kind: as far as this one if `stateful`, else at its start."""


class _Plain(Constraint):
    """A constraint that its attributes say all of: searches for the same take turns together."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), self.seqlen))


class PhrasalConstraint(_Plain):
    """The text must contain these tokens in a row."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        self.token_ids = _phrase("token_ids", token_ids)
        self.seqlen = len(self.token_ids)
        self.fulfilled_idx = -1  # the place of the last token that was met
        self.completed = False

    def advance(self) -> int | None:
        return None if self.completed else self.token_ids[self.fulfilled_idx + 1]

    def does_advance(self, token_id: int) -> bool:
        return not self.completed and checked_token(token_id) == self.token_ids[self.fulfilled_idx + 1]

    def update(self, token_id: int) -> Step:
        if not self.does_advance(token_id):
            self.reset()
            return False, False, True
        self.fulfilled_idx += 1
        self.completed = self.remaining() == 0
        return True, self.completed, False

    def reset(self) -> None:
        self.fulfilled_idx = -1
        self.completed = False

    def remaining(self) -> int:
        return self.seqlen - 1 - self.fulfilled_idx

    def copy(self, stateful: bool = False) -> PhrasalConstraint:
        other = PhrasalConstraint(self.token_ids)
        if stateful:
            other.fulfilled_idx, other.completed = self.fulfilled_idx, self.completed
        return other


class DisjunctiveConstraint(_Plain):
    """The text must contain one of several phrases; none of them begins another."""

    def __init__(self, nested_token_ids: Sequence[Sequence[int]]) -> None:
        self.token_ids = [_phrase("nested_token_ids", phrase) for phrase in _listed(nested_token_ids)]
        self.trie = _trie(self.token_ids)
        self.seqlen = max(len(phrase) for phrase in self.token_ids)
        self.current_seq: list[int] = []
        self.completed = False

    def advance(self) -> list[int] | None:
        return list(self._node()) or None

    def does_advance(self, token_id: int) -> bool:
        return checked_token(token_id) in self._node()

    def update(self, token_id: int) -> Step:
        if not self.does_advance(token_id):
            self.reset()
            return False, False, True
        self.current_seq.append(checked_token(token_id))
        self.completed = not self._node()
        return True, self.completed, False

    def reset(self) -> None:
        self.current_seq = []
        self.completed = False

    def remaining(self) -> int:
        return 0 if self.completed else self.seqlen - len(self.current_seq)

    def copy(self, stateful: bool = False) -> DisjunctiveConstraint:
        other = DisjunctiveConstraint(self.token_ids)
        if stateful:
            other.current_seq, other.completed = list(self.current_seq), self.completed
        return other

    def _node(self) -> dict[int, Any]:
        """What may follow the tokens met so far."""
        node = self.trie
        for token in self.current_seq:
            node = node[token]
        return node


def constraints_of(constraints: Sequence[Constraint] | None, force_words_ids: Any) -> tuple[Constraint, ...]:
    """The constraints of a call: those given, and one for each entry of force_words_ids.

    An entry is a phrase of token ids, or a list of phrases of which one is enough. Raises ArgumentError.
    """
    given = tuple(() if constraints is None else constraints)
    for one in given:
        if not isinstance(one, Constraint):
            raise ArgumentError(
                f"`constraints` must hold Constraint objects, got {type(one).__name__}. "
                "Use PhrasalConstraint or DisjunctiveConstraint, or pass token ids in `force_words_ids`."
            )
    words = () if force_words_ids is None else force_words_ids
    if not isinstance(words, (list, tuple)) or (force_words_ids is not None and not words):
        raise ArgumentError(f"`force_words_ids` must be a list of lists of token ids, got {words!r}. Leave it out.")
    return given + tuple(_forced(entry) for entry in words)


def _forced(entry: Any) -> Constraint:
    if not isinstance(entry, (list, tuple)) or not entry:
        raise ArgumentError(
            f"`force_words_ids` must hold lists of token ids, or lists of such lists, got {entry!r} in it. "
            "Give a word's ids, as tokenizer(word, add_special_tokens=False).input_ids does."
        )
    return DisjunctiveConstraint(entry) if isinstance(entry[0], (list, tuple)) else PhrasalConstraint(entry)


def _phrase(name: str, phrase: Any) -> list[int]:
    """A phrase's ids, checked."""
    if not isinstance(phrase, (list, tuple, np.ndarray)) or not len(phrase):
        raise ArgumentError(f"`{name}` must hold phrases of at least one token id, got {phrase!r}. Remove it.")
    return [checked_token(token) for token in phrase]


def _listed(phrases: Any) -> Any:
    if not isinstance(phrases, (list, tuple)) or not phrases:
        raise ArgumentError(f"`nested_token_ids` must be a list of phrases, got {phrases!r}. Give [[1, 2], [3]].")
    return phrases


def checked_token(token_id: Any) -> int:
    """A token id as an int, checked."""
    if isinstance(token_id, bool) or not isinstance(token_id, (int, np.integer)) or token_id < 0:
        raise ArgumentError(f"`token_id` must be a whole number of at least 0, got {token_id!r}. Pass a token's id.")
    return int(token_id)


def _trie(phrases: Sequence[Sequence[int]]) -> dict[int, Any]:
    """Token -> what may follow it. Raises ArgumentError where a phrase begins another, or is given twice."""
    root: dict[int, Any] = {}
    for phrase in phrases:
        node = root
        for token in phrase:
            node = node.setdefault(token, {})
    leaves = _leaves(root)
    if leaves != len(phrases):
        raise ArgumentError(
            f"`nested_token_ids` must hold phrases of which none begins another, got {list(phrases)}. "
            "Leave the longer ones out: the shorter one is enough."
        )
    return root


def _leaves(node: dict[int, Any]) -> int:
    return sum(_leaves(child) for child in node.values()) if node else 1
