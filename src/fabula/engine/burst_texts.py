"""Bursts of contrastive search: a group's rows are one text with candidates, whose first row gets what is settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from fabula.decoding.closed.contrastive import ClosedText, ClosedTexts, ContrastiveForm, SettledText
from fabula.decoding.closed.rows import ClosedRow
from fabula.decoding.contrastive import ContrastiveSearch
from fabula.engine.group import Group
from fabula.engine.request import Kept
from fabula.engine.scheduler import Plan
from fabula.ops.protocol import Batch

__all__ = ["BurstOfTexts", "HasBurstOfTexts", "are_texts", "counts_of", "first_rows", "kept_of_text", "text_of"]


class HasBurstOfTexts(Protocol):
    """A model that can run many turns of contrastive search by itself."""

    def burst_texts(self, batch: Batch, cache: Any, form: ContrastiveForm, texts: ClosedTexts) -> Sequence[SettledText]:
        """What each text was settled to go on with, as `decode_texts` finds it.

        Each of the batch's M rows is a candidate of the closed texts, over the blocks of its text's first row, or that
        candidate after a negative prompt, over the blocks of that. The cache then holds in them, from their first
        position on, what belongs to the tokens that were settled.
        """


class BurstOfTexts(Protocol):
    """`HasBurstOfTexts.burst_texts` of a model."""

    def __call__(
        self, batch: Batch, cache: Any, form: ContrastiveForm, texts: ClosedTexts
    ) -> Sequence[SettledText]: ...


def are_texts(plan: Plan) -> bool:
    """Whether each group is a contrastive search behind its first turn, whose rows compute candidates and choose."""
    underway = all(group.carry is not None for group in plan.groups)
    underway = underway and all(type(group.search) is ContrastiveSearch for group in plan.groups)
    return underway and len(plan.ready) == len(plan.groups) and all(count == 1 for _, count in plan.work)


def text_of(group: Group, row: ClosedRow) -> ClosedText:
    """What the group's rows have in common: all but the candidate that is the last token of its first, `row`."""
    negative = None if row.negative is None else row.negative[:-1]
    return ClosedText(replace(row, tokens=row.tokens[:-1], negative=negative), group.carry)


def kept_of_text(group: Group, settled: SettledText) -> list[Kept]:
    """What is kept of each turn but the one that ended the text: nothing was chosen in it."""
    record, told = group.request.recipe.record, settled.recorded
    if not record.keeps or told is None:
        return []
    scores, logits = told.scores, told.logits
    return [
        Kept(
            scores[turn : turn + 1].copy() if record.scores else None,
            logits[turn : turn + 1].copy() if record.logits else None,
        )
        for turn in range(len(settled) - settled.over)
    ]


def counts_of(group: Group, room: int) -> list[int]:
    """The positions that each of what a text computes needs: its first row is to hold what is settled."""
    first = len(group.rows[0].members)
    return [room] * first + [1] * (len(group.members) - first)


def first_rows(batch: Batch, groups: Sequence[Group], form: ContrastiveForm) -> Batch:
    """The groups' first rows of a batch of one position a row, each for every candidate."""
    starts = np.cumsum([0, *(len(group.members) for group in groups[:-1])]).repeat(form.width)
    firsts = (starts[:, None] + np.arange(form.chain.each)).reshape(-1)
    return Batch(
        tokens=batch.tokens[firsts],
        starts=np.arange(len(firsts) + 1, dtype=np.int32),
        first=batch.first[firsts],
        tables=batch.tables[firsts],
        scored=np.arange(len(firsts), dtype=np.int32),
        memories=tuple(batch.memories[row] for row in firsts.tolist()) if len(batch.memories) else (),
    )
