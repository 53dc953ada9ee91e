"""Rows whose processors are plain numbers, which a backend's sampler can apply itself, in one call for all rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
    TopPLogitsWarper: ("top_p", "top_p"),
    MinPLogitsWarper: ("min_p", "min_p"),
}
_ORDER = list(_NUMBERS)
_USUAL = {"filter_value": -float("inf"), "min_tokens_to_keep": 1, "prompt_ignore_length": 0}


def plain_numbers(recipe: Recipe) -> dict[str, float] | None:
    """The settings of RowChoice that stand for the recipe's processors; None where they are not all plain numbers."""
    kinds = [type(processor) for processor in recipe.processors]
    if recipe.record.scores or any(kind not in _NUMBERS for kind in kinds):
        return None
    places = [_ORDER.index(kind) for kind in kinds]
    if sorted(set(places)) != places or not all(map(_is_usual, recipe.processors)):
        return None
    numbers: dict[str, float] = {"temperature": 1.0 if recipe.sampled else 0.0}
    for processor in recipe.processors:
        field, attribute = _NUMBERS[type(processor)]
        numbers[field] = getattr(processor, attribute)
    return numbers


def _is_usual(processor: Any) -> bool:
    return all(getattr(processor, name, usual) == usual for name, usual in _USUAL.items())
