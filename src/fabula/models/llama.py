"""Llama 1 to 3, Mistral, SmolLM2, TinyLlama: rotary attention and a gated MLP, each behind an RMS norm."""

from __future__ import annotations

from fabula.models.family import Entry, Family
from fabula.ops.rope import rope_spec
from fabula.ops.specs import AttentionSpec, LayerSpec


class Llama(Family):
    """Touvron et al. 2023; the sliding window is Mistral's (Jiang et al. 2023, section 2)."""

    model_types = ("llama", "mistral")

    def __init__(self, config):
        self.config = config
        attention = AttentionSpec(
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            scale=config.head_dim**-0.5,
            window=config.get("sliding_window"),
        )
        rope = rope_spec(config)
        self.layers = tuple(LayerSpec(i, attention, rope) for i in range(config.num_hidden_layers))

    def weights(self):
        vocabulary, width = self.config.vocab_size, self.config.hidden_size
        return {
            "embed": Entry("model.embed_tokens.weight", (vocabulary, width)),
            "norm": Entry("model.norm.weight", (width,)),
            "head": Entry("lm_head.weight", (vocabulary, width), tied="embed"),
        }

    def layer_weights(self, layer):
        width, inner = self.config.hidden_size, self.config.intermediate_size
        q = layer.attention.heads * layer.attention.head_dim
        kv = layer.attention.kv_heads * layer.attention.head_dim
        prefix = "model.layers.{layer}."
        return {
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

    def embed(self, ops, w):
        return ops.embed(w.embed)

    def block(self, ops, x, w, layer):
        eps = self.config.rms_norm_eps
        h = ops.rms_norm(x, w.input_norm, eps)
        q, k, v = ops.linear(h, w.q), ops.linear(h, w.k), ops.linear(h, w.v)
        q, k = ops.rope(q, layer.rope), ops.rope(k, layer.rope)
        x = ops.add(x, ops.linear(ops.attend(layer, q, k, v), w.o))
        h = ops.rms_norm(x, w.mlp_norm, eps)
        return ops.add(x, ops.linear(ops.gated_mlp(h, w.gate, w.up, "silu"), w.down))

    def final(self, ops, x, w):
        return ops.rms_norm(x, w.norm, self.config.rms_norm_eps)

    def logits(self, ops, hidden, w):
        return ops.linear(hidden, w.head)
