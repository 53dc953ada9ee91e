"""Qwen3: Qwen2 with a norm on each head's query and key in place of the biases."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, SimpleNamespace

from fabula.models.families.family import Entry
from fabula.models.families.llama import Llama
from fabula.models.families.qwen2 import Qwen2
from fabula.ops.protocol import Array, Ops
from fabula.ops.specs import LayerSpec


class Qwen3(Qwen2):
    """Yang et al. 2025."""

    model_types = ("qwen3",)
    defaults = MappingProxyType({**Qwen2.defaults, "head_dim": 128})

    def projection_biases(self) -> tuple[str, ...]:
        return Llama.projection_biases(self)

    def layer_weights(self, layer: LayerSpec) -> Mapping[str, Entry]:
        prefix, size = "model.layers.{layer}.self_attn.", (layer.attention.head_dim,)
        norms = {"q_norm": Entry(prefix + "q_norm.weight", size), "k_norm": Entry(prefix + "k_norm.weight", size)}
        return {**super().layer_weights(layer), **norms}

    def project(self, ops: Ops, h: Array, w: SimpleNamespace, layer: LayerSpec) -> tuple[Array, Array, Array]:
        q, k, v = super().project(ops, h, w, layer)
        eps = self.config.rms_norm_eps
        return ops.rms_norm(q, w.q_norm, eps), ops.rms_norm(k, w.k_norm, eps), v
