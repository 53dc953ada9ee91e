"""Contrastive searches that need nobody but the device for many turns: their numbers as arrays, and what was settled.

What a loop keeps beside the cache is the direction of the final hidden state at every position of every text, in
float32: G * P * D numbers of four bytes, for G texts over P positions of a model D wide (48 MiB for 8 texts over 2,048
positions of a model 768 wide). Searches that would take more than MOST, or might once sizes are rounded up to powers of
two, go on one turn at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from fabula import arrays
from fabula.decoding.closed.record import Recorded, recorded_of
from fabula.decoding.closed.rows import ClosedRow, ClosedRows, Form, close, leaves_of, padded
from fabula.decoding.contrastive import Candidates, ContrastiveSearch
from fabula.decoding.recipe import Record
from fabula.decoding.strategy import FinishReason, Hypothesis, Move

__all__ = [
    "ClosedText",
    "ClosedTexts",
    "ContrastiveForm",
    "SettledText",
    "close_texts",
    "fits",
    "move_of",
    "padded_texts",
    "settled_of",
    "text_leaves_of",
]

MOST = 256 << 20  # bytes: what a loop keeps of hidden states
LEAST, FEW = 128, 512  # positions that a loop is compiled for: always, and if its texts may become so long
ROUNDED = 4  # times as much, at most, where texts and positions are rounded up to powers of two


@dataclass(frozen=True, slots=True)
class ContrastiveForm:
    """What a loop is compiled for, beside the shapes of its arrays; equal forms are one loop."""

    chain: Form  # the texts' processors, and which scores and logits are kept
    width: int  # W: the candidates of a text, as many as the search reads that reads most

    @property
    def each(self) -> int:
        """The model's rows to each text."""
        return self.width * self.chain.each

    def first_of(self, rows: int) -> np.ndarray:
        """Int["N"]: of so many rows of the model's, those of each text's first candidate."""
        return np.flatnonzero(np.arange(rows) % self.each < self.chain.each)


@dataclass(frozen=True, slots=True)
class ClosedTexts:
    """G texts with W candidates each, and all numbers that decide how they go on.

    The model computes M = G * W rows: the candidates, each behind its text. Or twice as many: behind each of them the
    same after a negative prompt.
    """

    rows: ClosedRows  # R = G: the texts; its `last` and `position`, Int["M"], are those of the candidates
    chances: Any  # Float32["G W"]: of the candidates; -1: there is none
    alpha: Any  # Float32["G"]: how much likeness counts
    rest: Any  # Float32["G"]: how much a candidate's chance does
    width: Any  # Int["G"]: how many candidates the text's own search reads
    longest: Any  # Int["G"]: how long the text may become, hidden tokens included
    read: Any  # Float32["G P D"]: the directions of the hidden states of the texts' positions; anything behind them


@dataclass(frozen=True, slots=True)
class ClosedText:
    """One text on the host, and the candidates behind it."""

    row: ClosedRow  # without a candidate; its room is in turns
    carry: Candidates

    @property
    def search(self) -> ContrastiveSearch | None:
        """How it goes on, if that can be closed."""
        search = self.row.recipe.search
        return search if type(search) is ContrastiveSearch else None


@dataclass(frozen=True, slots=True)
class SettledText:
    """What one text was settled to go on with in N turns of a loop, on the host."""

    tokens: np.ndarray  # Int["N"]
    candidates: np.ndarray  # Int["W'"]: those behind it then
    chances: np.ndarray  # Float32["W'"]
    read: np.ndarray  # Float32["N D"]: the directions of the new tokens' hidden states
    over: bool  # whether the text has ended
    recorded: Recorded | None = None  # ["N ..."]: of this text; None where nothing is wanted

    def __len__(self) -> int:
        return len(self.tokens)


def close_texts(texts: Sequence[ClosedText], hurried: bool = False) -> tuple[ContrastiveForm, ClosedTexts] | None:
    """The texts as arrays; None where they are not contrastive searches that can go on together, or take too much."""
    searches = [text.search for text in texts if text.search is not None]
    if len(searches) < len(texts) or not _within(texts):
        return None
    closed = close([text.row for text in texts], hurried)
    if closed is None:
        return None
    (form, rows), width = closed, max(search.width for search in searches)
    tokens, chances = np.zeros((len(texts), width), np.int32), np.full((len(texts), width), -1, np.float32)
    for place, text in enumerate(texts):
        tokens[place, : len(text.carry.tokens)] = text.carry.tokens
        chances[place, : len(text.carry.tokens)] = text.carry.probabilities
    behind = rows.position.reshape(len(texts), 1, form.each).repeat(width, 1) + 1
    alpha = [search.alpha for search in searches]
    kept = Record(scores=form.record.scores, logits=form.record.logits)
    return ContrastiveForm(replace(form, record=kept), width), ClosedTexts(
        rows=replace(rows, last=tokens.reshape(-1).repeat(form.each), position=behind.reshape(-1)),
        chances=chances,
        alpha=np.array(alpha, np.float32),
        rest=np.array([1 - one for one in alpha], np.float32),
        width=np.array([search.width for search in searches], np.int32),
        longest=np.array([text.row.recipe.limits.max_length for text in texts], np.int32),
        read=_side_by_side([_on_host(text.carry.read) for text in texts]),
    )


def fits(texts: int, positions: int, features: int) -> bool:
    """Whether the directions of so many texts' positions stay within MOST."""
    return 4 * texts * positions * features <= MOST


def padded_texts(texts: ClosedTexts, count: int, width: int) -> ClosedTexts:
    """The same with `count` texts, of which the new ones have ended, over `width` columns."""
    more, own = count - len(texts.alpha), {name: getattr(texts, name) for name in _names(texts)}
    wider = {name: np.concatenate([value, np.repeat(value[:1], more, axis=0)]) for name, value in own.items()}
    read = wider["read"]
    wider["read"] = np.pad(read, ((0, 0), (0, width - read.shape[1]), (0, 0)))
    return ClosedTexts(rows=padded(texts.rows, count, width), **wider)


def text_leaves_of(texts: ClosedTexts) -> tuple[list[np.ndarray], Callable[[Sequence[Any]], ClosedTexts]]:
    """All arrays of the texts, and what makes texts of others in their places: what a compiled function takes."""
    names = _names(texts)
    leaves, rows_of = leaves_of(texts.rows)

    def rebuild(others: Sequence[Any]) -> ClosedTexts:
        return ClosedTexts(rows_of(others[len(names) :]), **dict(zip(names, others, strict=False)))

    return [*(getattr(texts, name) for name in names), *leaves], rebuild


def settled_of(texts: ClosedTexts, end: Any, count: int) -> list[SettledText]:
    """What each of the first `count` texts gained, from what `decode_texts` gives, on the host."""
    found = []
    for text in range(count):
        start, stop = texts.rows.lengths[text], end.lengths[text]
        some = end.chances[text] >= 0
        parts = end.candidates[text][some], end.chances[text][some], end.read[text, : stop - start]
        told = recorded_of(end.kept, text, stop - start) if end.kept else None
        found.append(SettledText(end.tokens[text, start:stop], *parts, bool(end.over[text]), told))
    return found


def move_of(text: ClosedText, settled: SettledText) -> Move:
    """The search's move through so many turns, one or more: its rows are the candidates behind one text then."""
    row = text.row
    tokens = np.concatenate([row.tokens, settled.tokens])
    shown, nothing = tuple(settled.tokens.tolist()), np.zeros(0, np.int32)
    if settled.over:
        reason: FinishReason = "stop" if shown[-1] in row.recipe.limits.eos else "length"
        result = Hypothesis(tokens[row.prompt_length :], reason)
        return Move(None, nothing, nothing, shown, (result,), written=settled.tokens)
    read = np.concatenate([_on_host(text.carry.read), settled.read])
    reasons = tuple(_reason(row, token, len(tokens) + 1) for token in settled.candidates.tolist())
    carry = Candidates(settled.candidates, settled.chances, reasons, read)
    return Move(carry, np.zeros(len(reasons), np.int32), settled.candidates, shown, written=settled.tokens)


def _reason(row: ClosedRow, token: int, length: int) -> FinishReason | None:
    """Why a row of this length would end with this token: a closed row has no other limits."""
    limits = row.recipe.limits
    if token in limits.eos:
        return "stop"
    return "length" if length >= limits.max_length else None


def _within(texts: Sequence[ClosedText]) -> bool:
    """Whether the texts stay within MOST, however many columns and texts of padding they get."""
    longest = max(text.row.longest for text in texts)
    needed = max(len(part) + text.row.room for text in texts for part in text.row.texts)
    positions = max(LEAST, min(longest, FEW), needed)
    return fits(ROUNDED * len(texts), positions, texts[0].carry.read.shape[1])


def _side_by_side(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Float32["G P D"] of Float["L D"]."""
    whole = np.zeros((len(parts), max(map(len, parts)), parts[0].shape[1]), np.float32)
    for place, part in enumerate(parts):
        whole[place, : len(part)] = part
    return whole


def _on_host(x: Any) -> np.ndarray:
    return np.asarray(arrays.of(x).to_host(x), np.float32)


def _names(texts: ClosedTexts) -> list[str]:
    return [each.name for each in fields(texts) if each.name != "rows"]
