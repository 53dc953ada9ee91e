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


NO_TAPS = Taps()
