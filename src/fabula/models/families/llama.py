"""Llama 1 to 3, SmolLM2, TinyLlama: rotary attention and a gated MLP, each behind an RMS norm."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar

from fabula.models.families.family import Entry, Family, activation, require, whole_rotation
from fabula.models.families.settings import Settings
from fabula.ops.protocol import Array, Ops
from fabula.ops.rope import rope_spec
from fabula.ops.specs import AttentionSpec, LayerSpec


class Llama(Family):
    """Touvron et al. 2023. Families that differ in a projection or a window inherit the rest."""

    model_types: ClassVar[tuple[str, ...]] = ("llama",)
    defaults = MappingProxyType(
        {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": False,
            "rope_theta": 10000.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
    )

    def __init__(self, config: Settings) -> None:
        require(config, "mlp_bias", False)
        self.config = config
        self.activation = activation(config, "hidden_act")
        rope = whole_rotation(rope_spec(config))
        self.layers = tuple(LayerSpec(i, self.attention(self.window(i)), rope) for i in range(config.num_hidden_layers))

    def attention(self, window: int | None) -> AttentionSpec:
        """How a layer with this window attends."""
        config = self.config
        return AttentionSpec(
            config.num_attention_heads, config.num_key_value_heads, config.head_dim, config.head_dim**-0.5, window
        )

    def window(self, index: int) -> int | None:
        """How many positions a query of this layer sees."""
        return None

    def projection_biases(self) -> tuple[str, ...]:
        """Which of q, k, v and o have a bias."""
        return ("q", "k", "v", "o") if self.config.get("attention_bias") else ()

    def weights(self) -> Mapping[str, Entry]:
        vocabulary, width = self.config.vocab_size, self.config.hidden_size
        return {
            "embed": Entry("model.embed_tokens.weight", (vocabulary, width)),
            "norm": Entry("model.norm.weight", (width,)),
            "head": Entry("lm_head.weight", (vocabulary, width), tied="embed"),
        }

    def layer_weights(self, layer: LayerSpec) -> Mapping[str, Entry]:
        width, inner = self.config.hidden_size, self.config.intermediate_size
        q = layer.attention.heads * layer.attention.head_dim
        kv = layer.attention.kv_heads * layer.attention.head_dim
        prefix = "model.layers.{layer}."
        biases = {
            f"{field}_bias": Entry(f"{prefix}self_attn.{field}_proj.bias", (size,))
            for field, size in (("q", q), ("k", kv), ("v", kv), ("o", width))
            if field in self.projection_biases()
        }
        return biases | {
            "input_norm": Entry(prefix + "input_layernorm.weight", (width,)),
            "q": Entry(prefix + "self_attn.q_proj.weight", (q, width)),
            "k": Entry(prefix + "self_attn.k_proj.weight", (kv, width)),
            "v": Entry(prefix + "self_attn.v_proj.weight", (kv, width)),
            "o": Entry(prefix + "self_attn.o_proj.weight", (width, q)),
            "mlp_norm": Entry(prefix + "post_attention_layernorm.weight", (width,)),
            "gate": Entry(prefix + "mlp.gate_proj.weight", (inner, width)),
            "up": Entry(prefix + "mlp.up_proj.weight", (inner, width)),
            "down": Entry(prefix + "mlp.down_proj.weight", (width, inner)),
        }

    def embed(self, ops: Ops, w: SimpleNamespace) -> Array:
        return ops.embed(w.embed)

    def project(self, ops: Ops, h: Array, w: SimpleNamespace, layer: LayerSpec) -> tuple[Array, Array, Array]:
        """Queries, keys and values, before the rotation."""
        biases = vars(w)
        q = ops.linear(h, w.q, biases.get("q_bias"))
        k = ops.linear(h, w.k, biases.get("k_bias"))
        return q, k, ops.linear(h, w.v, biases.get("v_bias"))

    def block(self, ops: Ops, x: Array, w: SimpleNamespace, layer: LayerSpec) -> Array:
        eps = self.config.rms_norm_eps
        assert layer.rope is not None
        q, k, v = self.project(ops, ops.rms_norm(x, w.input_norm, eps), w, layer)
        q, k = ops.rope(q, layer.rope), ops.rope(k, layer.rope)
        x = ops.add(x, ops.linear(ops.attend(layer, q, k, v), w.o, vars(w).get("o_bias")))
        h = ops.rms_norm(x, w.mlp_norm, eps)
        return ops.add(x, ops.linear(ops.gated_mlp(h, w.gate, w.up, self.activation), w.down))

    def final(self, ops: Ops, x: Array, w: SimpleNamespace) -> Array:
        return ops.rms_norm(x, w.norm, self.config.rms_norm_eps)

    def logits(self, ops: Ops, hidden: Array, w: SimpleNamespace) -> Any:
        return ops.linear(hidden, w.head)
