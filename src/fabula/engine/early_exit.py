"""A model that stops after its first layers: the last norm and the head read what they give."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fabula.engine.draft_cache import DraftModel
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps

__all__ = ["EarlyExit"]


@dataclass(frozen=True, slots=True)
class EarlyExit:
    """Elhoushi et al. 2024, "LayerSkip", section 4.3: a model drafts for itself. Its cache is not the whole model's."""

    model: DraftModel
    layers: int  # that are computed

    def new_cache(self, blocks: int) -> Any:
        """Storage for so many blocks of keys and values."""
        return self.model.new_cache(blocks)

    def step(self, batch: Batch, cache: Any, taps: Taps = NO_TAPS) -> Forward:
        """Writes the first layers' keys and values; the logits that the head gives after them."""
        return self.model.step(batch, cache, replace(taps, last_layer=self.layers))
