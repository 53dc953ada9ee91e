"""mT5: version 1.1 of T5 for many languages, whose head is never scaled."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from fabula.models.families.t5 import T5


class MT5(T5):
    """Xue et al. 2021."""

    model_types = ("mt5",)
    defaults = MappingProxyType(
        {
            **T5.defaults,
            "vocab_size": 250112,
            "d_ff": 1024,
            "num_layers": 8,
            "num_heads": 6,
            "feed_forward_proj": "gated-gelu",
            "decoder_start_token_id": 0,
        }
    )

    @classmethod
    def settled(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**super().settled(values), "scale_decoder_outputs": False}
