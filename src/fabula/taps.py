"""What is wanted of a forward pass beyond the logits."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NO_TAPS", "Taps"]


@dataclass(frozen=True, slots=True)
class Taps:
    """What a strategy needs of a forward pass beyond the logits of the scored positions."""

    hidden_states: tuple[int, ...] = ()  # outputs of these layers at scored positions (0: the embeddings)
    attentions: tuple[int, ...] = ()  # attention weights of these layers
    final_hidden: bool = False  # what the head reads
    layer_logits: tuple[int, ...] = ()  # what the head makes of these layers' outputs, without the final norm
    last_layer: int | None = None  # only so many layers are computed, then the final norm and the head; None: all

    def __or__(self, other: Taps) -> Taps:
        """What either wants."""
        if other == self:
            return self
        return Taps(
            tuple(sorted({*self.hidden_states, *other.hidden_states})),
            tuple(sorted({*self.attentions, *other.attentions})),
            self.final_hidden or other.final_hidden,
            tuple(sorted({*self.layer_logits, *other.layer_logits})),
            self.last_layer if self.last_layer == other.last_layer else None,
        )


NO_TAPS = Taps()
