"""How keys and values are stored: a kind of storage, and the engines of a model have one each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CacheKind:
    """One kind of storage; equal kinds share an engine."""

    name: Literal["dynamic", "offloaded", "quantized"] = "dynamic"
    bits: int = 0  # a number's, where it is quantized: 8 or 4
    group: int = 0  # how many features of a head share a scale, where it is quantized


DYNAMIC = CacheKind()
