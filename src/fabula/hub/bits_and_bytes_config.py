"""`quantization_config=` as users of bitsandbytes write it: which number of bits weights are packed to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fabula.errors import ArgumentError


@dataclass(frozen=True, kw_only=True)
class BitsAndBytesConfig:
    """Asks from_pretrained() for 4 or 8 bits a weight, as `load_in_4bit` and `load_in_8bit` do; one of both.

    The other fields belong to bitsandbytes' own formats: they are accepted and change nothing, as groups of 32 weights
    share a scale and a minimum here, and nothing is left out for being large. `llm_int8_skip_modules` is refused when a
    model is loaded. Raises ArgumentError for both numbers of bits.
    """

    load_in_8bit: bool = False
    load_in_4bit: bool = False
    llm_int8_threshold: float = 6.0
    llm_int8_skip_modules: Any = None
    llm_int8_enable_fp32_cpu_offload: bool = False
    llm_int8_has_fp16_weight: bool = False
    bnb_4bit_compute_dtype: Any = None
    bnb_4bit_quant_type: str = "fp4"
    bnb_4bit_use_double_quant: bool = False
    bnb_4bit_quant_storage: Any = None

    def __post_init__(self) -> None:
        for name in ("load_in_8bit", "load_in_4bit"):
            if not isinstance(getattr(self, name), bool):
                raise ArgumentError(f"`{name}` must be True or False, got {getattr(self, name)!r}.")
        if self.load_in_4bit and self.load_in_8bit:
            raise ArgumentError("`load_in_4bit` and `load_in_8bit` exclude each other, got both. Set one of them.")
