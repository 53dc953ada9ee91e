"""Qwen2 and Qwen2.5: Llama with biases on queries, keys and values, and a window in the upper layers if asked for."""

from __future__ import annotations

from types import MappingProxyType

from fabula.models.families.llama import Llama


class Qwen2(Llama):
    """Yang et al. 2024."""

    model_types = ("qwen2",)
    defaults = MappingProxyType(
        {
            **Llama.defaults,
            "vocab_size": 151936,
            "intermediate_size": 22016,
            "num_key_value_heads": 32,
            "max_position_embeddings": 32768,
            "use_sliding_window": False,
            "sliding_window": 4096,
            "max_window_layers": 28,
            "bos_token_id": None,
            "eos_token_id": None,
        }
    )

    def window(self, index: int) -> int | None:
        config = self.config
        if not config.use_sliding_window:
            return None
        kinds = config.get("layer_types")
        slides = kinds[index] == "sliding_attention" if kinds else index >= config.max_window_layers
        return config.sliding_window if slides else None

    def projection_biases(self) -> tuple[str, ...]:
        return ("q", "k", "v")
