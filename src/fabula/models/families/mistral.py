"""Mistral: Llama with a window."""

from __future__ import annotations

from types import MappingProxyType

from fabula.models.families.llama import Llama


class Mistral(Llama):
    """Jiang et al. 2023, section 2."""

    model_types = ("mistral",)
    defaults = MappingProxyType(
        {
            **Llama.defaults,
            "intermediate_size": 14336,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "sliding_window": 4096,
        }
    )

    def window(self, index: int) -> int | None:
        return self.config.sliding_window

    def projection_biases(self) -> tuple[str, ...]:
        return ()
