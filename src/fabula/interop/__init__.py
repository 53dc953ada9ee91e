"""Models and programs of others: `interop.wrap(model)` generates with a model of transformers."""

from __future__ import annotations

from typing import Any

from fabula import arrays


def wrap(model: Any) -> Any:
    """An object with Fabula's `generate()` that computes with `model`, a PreTrainedModel of transformers.

    The model stays as it is, and its parameters are used where they are. Raises ArgumentError for other models.
    """
    return arrays.part(model, __name__).wrap(model)
