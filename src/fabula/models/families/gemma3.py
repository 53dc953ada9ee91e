"""Gemma 3, its text part: five layers with a window to one without, norms before and after each half of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

from fabula.models.families.family import Entry, activation, require, whole_rotation
from fabula.models.families.llama import Llama
from fabula.models.families.settings import Settings
from fabula.ops.protocol import Array, Ops
from fabula.ops.rope import rope_spec
from fabula.ops.specs import AttentionSpec, LayerSpec


class Gemma3(Llama):
    """Gemma Team 2025, section 2. A norm's weight is stored less one."""

    model_types = ("gemma3_text", "gemma3")
    defaults = MappingProxyType(
        {
            "vocab_size": 262208,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh",
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "sliding_window_pattern": 6,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
        }
    )

    def __init__(self, config: Settings) -> None:
        require(config, "use_bidirectional_attention", False)
        self.config = config
        self.embedding_scale = config.hidden_size**0.5
        self.activation = activation(config, "hidden_activation")
        ropes = {kind: whole_rotation(rope_spec(config, kind)) for kind in ("full_attention", "sliding_attention")}
        self.layers = tuple(
            LayerSpec(i, self.attention(config.sliding_window if kind == "sliding_attention" else None), ropes[kind])
            for i, kind in enumerate(self._layer_types())
        )

    def _layer_types(self) -> list[str]:
        pattern = self.config.sliding_window_pattern
        return self.config.get("layer_types") or [
            "sliding_attention" if (i + 1) % pattern else "full_attention" for i in range(self.config.num_hidden_layers)
        ]

    def attention(self, window: int | None) -> AttentionSpec:
        """How a layer with this window attends. transformers never applies `attn_logit_softcapping` here; nor do we."""
        config = self.config
        scale = config.query_pre_attn_scalar**-0.5
        return AttentionSpec(config.num_attention_heads, config.num_key_value_heads, config.head_dim, scale, window)

    def layer_weights(self, layer: LayerSpec) -> Mapping[str, Entry]:
        prefix = "model.layers.{layer}."
        width, head = (self.config.hidden_size,), (layer.attention.head_dim,)
        return {
            **super().layer_weights(layer),
            "q_norm": Entry(prefix + "self_attn.q_norm.weight", head),
            "k_norm": Entry(prefix + "self_attn.k_norm.weight", head),
            "attention_norm": Entry(prefix + "post_attention_layernorm.weight", width),
            "mlp_norm": Entry(prefix + "pre_feedforward_layernorm.weight", width),
            "output_norm": Entry(prefix + "post_feedforward_layernorm.weight", width),
        }

    def embed(self, ops: Ops, w: SimpleNamespace) -> Array:
        return ops.embed(w.embed, scale=self.embedding_scale)

    def norm(self, ops: Ops, x: Array, weight: Any) -> Array:
        """Over the root mean square, times one more than the weight."""
        return ops.rms_norm(x, weight, self.config.rms_norm_eps, offset=1.0)

    def project(self, ops: Ops, h: Array, w: SimpleNamespace, layer: LayerSpec) -> tuple[Array, Array, Array]:
        q, k, v = super().project(ops, h, w, layer)
        return self.norm(ops, q, w.q_norm), self.norm(ops, k, w.k_norm), v

    def block(self, ops: Ops, x: Array, w: SimpleNamespace, layer: LayerSpec) -> Array:
        assert layer.rope is not None
        q, k, v = self.project(ops, self.norm(ops, x, w.input_norm), w, layer)
        q, k = ops.rope(q, layer.rope), ops.rope(k, layer.rope)
        h = ops.linear(ops.attend(layer, q, k, v), w.o, vars(w).get("o_bias"))
        x = ops.add(x, self.norm(ops, h, w.attention_norm))
        h = ops.gated_mlp(self.norm(ops, x, w.mlp_norm), w.gate, w.up, self.activation)
        return ops.add(x, self.norm(ops, ops.linear(h, w.down), w.output_norm))

    def final(self, ops: Ops, x: Array, w: SimpleNamespace) -> Array:
        return self.norm(ops, x, w.norm)

    def logits(self, ops: Ops, hidden: Array, w: SimpleNamespace) -> Any:
        scores, cap = ops.linear(hidden, w.head), self.config.get("final_logit_softcapping")
        return scores if cap is None else ops.softcap(scores, cap)
