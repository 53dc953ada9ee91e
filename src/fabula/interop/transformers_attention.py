"""Attention over blocks for models of transformers: what their attention interface calls while a step is under way.

Which blocks, and where each position lies in them, comes as an argument of the model's forward, `blocks`, which models
hand on to every layer. A call without it, as another thread may make it meanwhile, attends as it would have done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from fabula.errors import NotSupportedError
from fabula.ops.specs import AttentionSpec

__all__ = ["Asked", "Attends", "attending", "configs_of", "over_blocks"]

NAME = "fabula_blocks"  # of the implementation, in the interface's list
FORMER = "sdpa"  # whose place it takes
_POSITIONS = frozenset({"position_ids", "cache_position"})  # which change nothing here


class Attends(Protocol):
    """What `blocks` is."""

    def attend(self, asked: Asked, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """What q [T, heads, features] gathers, where k and v [T, kv_heads, features] are the layer's new ones."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One layer's call."""

    module: Any
    given: Mapping[str, Any]  # what else it gives the interface

    @property
    def index(self) -> int:
        """The layer's."""
        return int(self.module.layer_idx)

    def spec(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> AttentionSpec:
        """How it attends. Raises NotSupportedError for more than a scale, a window and a cap on scores."""
        given, causal = self.given, getattr(self.module, "is_causal", True)
        others = [name for name in given.keys() - _POSITIONS if isinstance(given[name], torch.Tensor)]
        if others or not causal or given.get("is_causal") is False or not len(q) == len(k) == len(v):
            raise NotSupportedError(f"blocks must be attended to causally and with nothing beside, got {others}.")
        if not q.shape[2] == k.shape[2] == v.shape[2]:
            sizes = [part.shape[2] for part in (q, k, v)]
            raise NotSupportedError(f"heads over blocks must be of one size, got {sizes} of queries, keys and values.")
        scale = given.get("scaling")
        return AttentionSpec(
            heads=q.shape[1],
            kv_heads=k.shape[1],
            head_dim=q.shape[2],
            scale=q.shape[2] ** -0.5 if scale is None else float(scale),
            window=given.get("sliding_window"),
            softcap=given.get("softcap"),
        )


def over_blocks(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    blocks: Attends | None = None,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """What q [1, heads, T, features] gathers, [1, T, heads, features]: all rows lie end to end in the call's one."""
    if blocks is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **given)
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    return blocks.attend(Asked(module, given), q, k, v)[None], None


@contextmanager
def attending(configs: Sequence[Any]) -> Iterator[None]:
    """The models of these configurations attend with `over_blocks`, and afterwards as they did."""
    before = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = NAME
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name


def configs_of(module: torch.nn.Module) -> list[Any]:
    """The configurations that the module's parts look at. Raises NotSupportedError where one attends in other ways."""
    found = {id(part.config): part.config for part in module.modules() if hasattr(part, "config")}
    configs = [config for config in found.values() if hasattr(config, "_attn_implementation")]
    ways = {config._attn_implementation for config in configs}
    if ways != {FORMER}:
        raise NotSupportedError(f"`attn_implementation` must be '{FORMER}' for blocks, got {sorted(map(str, ways))}.")
    if NAME not in AttentionInterface.valid_keys(AttentionInterface()):
        AttentionInterface.register(NAME, over_blocks)
        AttentionMaskInterface.register(NAME, sdpa_mask)
    return configs
