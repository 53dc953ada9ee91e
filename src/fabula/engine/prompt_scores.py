"""Log-probabilities of a prompt's own tokens, gathered while it is computed in chunks."""

from __future__ import annotations

import numpy as np

from fabula import arrays
from fabula.engine.recording import likelihoods
from fabula.engine.row import Row
from fabula.engine.scheduler import Plan


def score_prompts(plan: Plan, logits: object, spans: dict[int, tuple[int, int]]) -> None:
    """Adds to the rows whose prompts are scored what this step's outputs say of their next tokens."""
    counts = {id(group.rows[0]): group.request.recipe.record for group in plan.groups}
    for row, _ in plan.work:
        record = counts.get(id(row))
        if row.scored_from is None or record is None or not record.prompt:
            continue
        row.prompt_scores.append(_scored(row, logits, spans[id(row)], record.log_probabilities or 0))


def _scored(row: Row, logits: object, span: tuple[int, int], count: int) -> tuple[np.ndarray, list]:
    first, end = span
    position = row.computed - (end - first)
    targets = row.tokens[position + 1 : min(row.computed + 1, row.prompt_length)]
    if not len(targets):
        return np.zeros(0, np.float32), []
    xp = arrays.of(logits)
    rows = xp.asarray(np.arange(first, first + len(targets), dtype=np.int32), "int32", like=logits)
    chances, best = likelihoods(xp.take(logits, rows), xp.asarray(targets, "int32", like=logits), count)
    return chances, best or []
