"""Drafts by a model with another tokenizer: what it says goes over as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from fabula.decoding.strategy import Draftable, Drafter

__all__ = ["TextTokenizer", "TranslatedDrafter"]

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # how bytes are shown that are not yet a letter


class TextTokenizer(Protocol):
    """All that translation asks of a tokenizer, ours or transformers'."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Any: ...

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Translated:
    """A row as the drafting model was last shown it."""

    length: int  # tokens of the target that are in `ids`
    ids: list[int]  # of the drafting model


class TranslatedDrafter:
    """Timor et al. 2025, "Accelerating LLM inference with lossless speculative decoding algorithms for heterogeneous
    vocabularies", section 3: drafts match as text. Only the last tokens of either side are encoded anew, so that words
    that were cut at the seam come out whole. The drafting model takes its best tokens: it cannot share the row's draws.
    """

    def __init__(
        self,
        drafter: Drafter,
        target: TextTokenizer,
        own: TextTokenizer,
        *,
        target_lookbehind: int = 10,
        own_lookbehind: int = 10,
        ends: tuple[frozenset[int], int | None] = (frozenset(), None),
    ) -> None:
        """`own`: the drafting model's tokenizer; lookbehinds count tokens that are encoded anew with what is new.

        `ends`: ids that end the drafting model's text, and the target's id that says the same.
        """
        self.drafter, self.target, self.own = drafter, target, own
        self.lookbehind = {"target": target_lookbehind, "own": own_lookbehind}
        self.ends = ends
        self._rows: dict[int, _Translated] = {}

    def propose(self, rows: Sequence[Draftable]) -> Sequence[np.ndarray]:
        """For each row Int["K"]: the drafted text in the target's tokens."""
        asked = [self._asked(row) for row in rows]
        drafts = self.drafter.propose(asked)
        return [self._back(*each) for each in zip(rows, asked, drafts, strict=True)]

    def judged(self, key: int, proposed: int, kept: int) -> None:
        """Passed on; both numbers count the target's tokens."""
        self.drafter.judged(key, proposed, kept)

    def forget(self, key: int) -> None:
        """Forgets the row's translation, and passes it on."""
        self._rows.pop(key, None)
        self.drafter.forget(key)

    def _asked(self, row: Draftable) -> Draftable:
        """The row in the drafting model's tokens."""
        known = self._rows.get(row.key)
        ids = None if known is None else self._continued(known, row.tokens)
        if ids is None:
            ids = _ids(self.own.encode(_text(self.target, row.tokens.tolist()), add_special_tokens=True))
        self._rows[row.key] = _Translated(len(row.tokens), ids)
        most = row.most if ids else 0
        tokens = np.array(ids, np.int32)
        return replace(row, tokens=tokens, prompt_length=len(ids), most=most, processors=(), sampled=False)

    def _continued(self, known: _Translated, tokens: np.ndarray) -> list[int] | None:
        """The known ids with what the tokens add; None where that is not simply more text."""
        start, kept = max(0, known.length - self.lookbehind["target"]), len(known.ids) - self.lookbehind["own"]
        added = _added(self.target, tokens[start : known.length].tolist(), tokens[known.length :].tolist())
        if added is None or kept < 1 or start == 0:  # behind what a text begins with
            return None
        again = _text(self.own, known.ids[kept:]) + added
        return known.ids[:kept] + _ids(self.own.encode(again, add_special_tokens=False))

    def _back(self, row: Draftable, asked: Draftable, draft: np.ndarray) -> np.ndarray:
        """A draft of the drafting model in the target's tokens, Int["K"]."""
        ended = len(draft) > 0 and int(draft[-1]) in self.ends[0]
        drafted = draft[: len(draft) - ended].tolist()
        behind = asked.tokens[max(0, len(asked.tokens) - self.lookbehind["own"]) :].tolist()
        added = _added(self.own, behind, drafted)
        tokens = self._matched(row.tokens, added) if added else []
        if ended and self.ends[1] is not None:
            tokens.append(self.ends[1])
        return np.array(tokens[: row.most], np.int32)

    def _matched(self, tokens: np.ndarray, added: str) -> list[int]:
        """The target's tokens of a text that follows these: encoded with the last of them, if those stay."""
        added = added.rstrip(UNFINISHED)
        behind = tokens[max(0, len(tokens) - self.lookbehind["target"]) :].tolist()
        ids = _ids(self.target.encode(_text(self.target, behind) + added, add_special_tokens=False))
        if ids[: len(behind)] == behind:
            return ids[len(behind) :]
        return _ids(self.target.encode(added, add_special_tokens=False))


def _text(tokenizer: TextTokenizer, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _ids(encoded: Any) -> list[int]:
    return [int(one) for one in encoded]


def _added(tokenizer: TextTokenizer, before: list[int], new: list[int]) -> str | None:
    """The text that new ids add to those before; None where they change it."""
    text, whole = _text(tokenizer, before), _text(tokenizer, before + new)
    return whole[len(text) :] if whole.startswith(text) else None
