"""What a step's rows want of the pass beyond the logits, all of them together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fabula.engine.group import Group
from fabula.taps import NO_TAPS, Taps


def taps_of(groups: Iterable[Group], model: Any) -> Taps:
    """The taps of the groups' strategies and records."""
    found = NO_TAPS
    for recipe in {id(group.request.recipe): group.request.recipe for group in groups}.values():
        found = found | recipe.strategy.taps
        if recipe.record.hidden_states or recipe.record.attentions:
            every = tuple(range(_layers_of(model)))
            states, weights = recipe.record.hidden_states, recipe.record.attentions
            found = found | Taps(every if states else (), every if weights else (), final_hidden=states)
    return found


def _layers_of(model: Any) -> int:
    """How many layers the model has: it lists them, or says their number."""
    layers = getattr(model, "layers", None)
    return int(model.layer_count) if layers is None else len(layers)
