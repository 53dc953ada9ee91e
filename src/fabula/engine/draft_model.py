"""Drafts by a smaller model: all rows together, with the processors and the keyed draws that the target will use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.decoding.draft_length import DraftLength
from fabula.decoding.sample import choose_tokens
from fabula.decoding.strategy import Draftable, Draw
from fabula.engine.draft_cache import DraftCache, DraftModel, DraftRow
from fabula.errors import OutOfMemoryError
from fabula.processors.guidance import UnbatchedClassifierFreeGuidanceLogitsProcessor
from fabula.processors.rows import Process, stack

__all__ = ["DraftLimits", "ModelDrafter"]

TWENTY = DraftLength()


@dataclass(frozen=True, slots=True)
class DraftLimits:
    """When a draft ends."""

    length: DraftLength = TWENTY
    confidence: float | None = 0.4  # a token that the drafting model gives less than this is the draft's last
    eos: frozenset[int] = frozenset()  # so is any of these
    vocabulary: int | None = None  # the target's: ids at or above it are never drafted; None: the models' are the same
    own_vocabulary: int | None = None  # the drafting model's: rows with ids at or above it get no drafts
    context: int | None = None  # positions that the drafting model was made for


@dataclass(eq=False, slots=True)
class _Draft:
    """A row's draft while it grows."""

    asked: Draftable
    row: DraftRow
    most: int
    done: bool = False

    @property
    def tokens(self) -> np.ndarray:
        """Int["K"]: what was drafted."""
        return self.row.tokens[len(self.asked.tokens) : self.row.length]


class ModelDrafter:
    """Leviathan et al. 2023, "Fast inference from transformers via speculative decoding", with keyed draws in the place
    of rejection: target and drafter take the maximum of score plus the same noise, so that they agree as often as they
    can tell each other's choice.
    """

    def __init__(
        self,
        model: DraftModel,
        limits: DraftLimits | None = None,
        *,
        step_tokens: int = 512,
        learnt: Callable[[int], None] | None = None,
        remembers: bool = False,
    ) -> None:
        """`step_tokens`: positions that the model computes at a time; `learnt` is told the number of tokens to draft
        that a row ended with, where the schedule outlives it; `remembers`: what drafts were chosen by is kept.
        """
        self.limits = limits or DraftLimits()
        self._cache = DraftCache(model)
        self._step_tokens = step_tokens
        self._learnt = learnt
        self._guesses: dict[int, list[Any]] | None = {} if remembers else None  # of each row's last drafts
        self._rows: dict[int, DraftRow] = {}
        self._numbers: dict[int, int] = {}
        self._stacked: tuple[list[Sequence[Any]], Process] = ([], stack([[]]))

    def propose(self, rows: Sequence[Draftable]) -> Sequence[np.ndarray]:
        """For each row Int["K"]: what the drafting model would go on with. Where memory ends, shorter drafts."""
        drafts = {row.key: self._begin(row) for row in rows if self._most(row) > 0}
        growing = list(drafts.values())
        try:
            while growing:
                self._step(growing)
                growing = [draft for draft in growing if not draft.done]
        except OutOfMemoryError:
            for draft in growing:
                draft.row.drop()
        nothing = np.zeros(0, np.int32)
        return [drafts[row.key].tokens if row.key in drafts else nothing for row in rows]

    def guesses(self, key: int) -> Sequence[Any]:
        """K of Float32["V"]: the scores that each of the row's last K drafts was chosen by."""
        return () if self._guesses is None else self._guesses[key]

    def judged(self, key: int, proposed: int, kept: int) -> None:
        """The row's next draft is longer or shorter, as the schedule says."""
        self._numbers[key] = self.limits.length.after(self._number(key), proposed, kept)

    def forget(self, key: int) -> None:
        """The row has ended: its blocks are given back."""
        if key in self._rows:
            self._rows.pop(key).drop()
        if self._guesses is not None:
            self._guesses.pop(key, None)
        number = self._numbers.pop(key, None)
        if number is not None and self._learnt is not None and self.limits.length.outlives:
            self._learnt(number)

    def _number(self, key: int) -> int:
        return self._numbers.get(key, self.limits.length.number)

    def _most(self, row: Draftable) -> int:
        """How many tokens may be drafted."""
        limits = self.limits
        if not len(row.tokens):  # nobody may see what the row begins with
            return 0
        if limits.own_vocabulary is not None and (row.tokens >= limits.own_vocabulary).any():
            return 0
        room = row.most if limits.context is None else min(row.most, limits.context - len(row.tokens))
        return min(self._number(row.key), room)

    def _begin(self, asked: Draftable) -> _Draft:
        row = self._rows.setdefault(asked.key, self._cache.new_row())
        most = self._most(asked)
        row.become(asked.tokens, most)
        if self._guesses is not None:
            self._guesses[asked.key] = []
        return _Draft(asked, row, most)

    def _step(self, drafts: Sequence[_Draft]) -> None:
        """Computes what is missing, up to a step's size, and a token for each row that misses nothing."""
        left, work = self._step_tokens, []
        for draft in drafts:
            count = min(draft.row.missing, left)
            left -= count
            if count:
                work.append((draft, count))
        logits = self._cache.step([(draft.row, count) for draft, count in work])
        ready = [draft for draft, _ in work if not draft.row.missing]
        if ready:
            self._choose(ready, logits)

    def _choose(self, drafts: Sequence[_Draft], logits: Any) -> None:
        """Appends the next token of each draft, from Float["N V"]."""
        xp = arrays.of(logits)
        scores = self._process(drafts)(xp.astype(logits, "float32"), _context(drafts, logits))
        tokens = choose_tokens(xp, scores, _draw(drafts))
        chances = xp.take_along_axis(scores, tokens[:, None])[:, 0] - xp.logsumexp(scores)
        found = zip(drafts, xp.to_host(tokens).tolist(), np.exp(xp.to_host(chances)).tolist(), strict=True)
        for place, (draft, token, chance) in enumerate(found):
            if self._guesses is not None:
                self._guesses[draft.asked.key].append(scores[place])
            self._append(draft, token, chance)

    def _append(self, draft: _Draft, token: int, chance: float) -> None:
        limits = self.limits
        if limits.vocabulary is not None and token >= limits.vocabulary:
            draft.done = True
            return
        draft.row.append(token)
        unsure = limits.confidence is not None and chance < limits.confidence
        draft.done = len(draft.tokens) >= draft.most or token in limits.eos or unsure

    def _process(self, drafts: Sequence[_Draft]) -> Process:
        """The rows' processors as one, as long as the rows stay the same."""
        chains = [draft.asked.processors for draft in drafts]
        known, process = self._stacked
        if len(chains) != len(known) or any(a is not b for a, b in zip(chains, known, strict=True)):
            process = stack([_without_guidance(chain) for chain in chains])
            self._stacked = (chains, process)
        return process


def _without_guidance(chain: Sequence[Any]) -> Sequence[Any]:
    """A row's processors, without what needs the target's logits after a negative prompt."""
    guided = [isinstance(each, UnbatchedClassifierFreeGuidanceLogitsProcessor) for each in chain]
    return [each for each, out in zip(chain, guided, strict=True) if not out] if any(guided) else chain


def _context(drafts: Sequence[_Draft], like: Any) -> Context:
    """The rows with their drafts, as arrays where the logits are."""
    xp = arrays.of(like)
    lengths = np.array([draft.row.length for draft in drafts], np.int32)
    tokens = np.zeros((len(drafts), int(lengths.max())), np.int32)
    for place, draft in enumerate(drafts):
        tokens[place, : draft.row.length] = draft.row.tokens[: draft.row.length]
    prompts = np.array([draft.asked.prompt_length for draft in drafts], np.int32)
    return Context(*(xp.asarray(part, "int32", like=like) for part in (tokens, lengths, prompts)))


def _draw(drafts: Sequence[_Draft]) -> Draw:
    """The keys that the target's own draws have at these positions."""
    return Draw.of(
        seeds=[draft.asked.seed for draft in drafts],
        streams=[draft.asked.stream for draft in drafts],
        positions=[draft.row.length for draft in drafts],
        sampled=[draft.asked.sampled for draft in drafts],
    )
