"""Rows whose processors are plain numbers, which a backend's sampler can apply itself, in one call for all rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fabula.arrays.random import joined_seed
from fabula.decoding.closed.rows import ClosedRows, Form
from fabula.decoding.recipe import Recipe
from fabula.kernels.sampling import RowChoice
from fabula.processors import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

Sampler = Callable[[Any, Sequence[RowChoice]], Any]  # (logits Float32["R V"], rows) -> tokens Int["R"]; -1: cannot say

# In the order in which a sampler applies them: processor -> the field of RowChoice, and the attribute that holds it.
_NUMBERS: dict[type, tuple[str, str]] = {
    RepetitionPenaltyLogitsProcessor: ("repetition_penalty", "penalty"),
    TemperatureLogitsWarper: ("temperature", "temperature"),
    TopKLogitsWarper: ("top_k", "top_k"),
    TopPLogitsWarper: ("tail", "tail"),
    MinPLogitsWarper: ("min_p", "min_p"),
}
_ORDER = list(_NUMBERS)
_USUAL = {"filter_value": -float("inf"), "min_tokens_to_keep": 1, "prompt_ignore_length": 0}


def plain_numbers(recipe: Recipe) -> dict[str, float] | None:
    """The settings of RowChoice that stand for the recipe's processors; None where they are not all plain numbers."""
    known = _in_order([type(processor) for processor in recipe.processors])
    if recipe.record.scores or not known or not all(map(_is_usual, recipe.processors)):
        return None
    numbers: dict[str, float] = {"temperature": 1.0}
    for processor in recipe.processors:
        field, attribute = _NUMBERS[type(processor)]
        numbers[field] = getattr(processor, attribute)
    return numbers if recipe.sampled else {**numbers, "temperature": 0.0}


def is_plain(form: Form) -> bool:
    """Whether a sampler can choose for the form's rows, as `plain_choices` tells it."""
    simple = form.each == 1 and form.contrast is None
    return (
        simple
        and _in_order([column.kind for column in form.columns])
        and all(
            _is_usual(column.processor) and set(column.names) <= {_NUMBERS[column.kind][1]} for column in form.columns
        )
    )


def plain_choices(form: Form, rows: ClosedRows, room: int) -> list[RowChoice]:
    """How rows choose whose recipes are plain numbers, each with tokens of its own, with room for so many more."""
    choices = []
    for row in range(len(rows.lengths)):
        numbers: dict[str, Any] = {"temperature": 1.0}
        for column, own in zip(form.columns, rows.numbers, strict=True):
            field, attribute = _NUMBERS[column.kind]
            if attribute in own:
                numbers[field] = own[attribute][row, 0].item()
        if not rows.sampled[row]:
            numbers["temperature"] = 0.0
        length = int(rows.lengths[row])
        tokens = np.pad(rows.tokens[row, :length], (0, room))[:length]
        seed = joined_seed(int(rows.seed_low[row]), int(rows.seed_high[row]))
        place = {"stream": int(rows.stream[row]), "position": length + int(rows.hidden[row])}
        choices.append(RowChoice(**numbers, **place, seed=seed, tokens=tokens))
    return choices


def _in_order(kinds: Sequence[type]) -> bool:
    """Whether a sampler knows all of these processors, and applies them in this order."""
    if any(kind not in _NUMBERS for kind in kinds):
        return False
    places = [_ORDER.index(kind) for kind in kinds]
    return sorted(set(places)) == places


def _is_usual(processor: Any) -> bool:
    return all(getattr(processor, name, usual) == usual for name, usual in _USUAL.items())
