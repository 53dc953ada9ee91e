"""GPT-2: learned positions, layer norms with biases, and one matrix for queries, keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

from fabula.models.families.family import Entry, Family, activation, require
from fabula.models.families.settings import Settings
from fabula.ops.protocol import Array, Ops
from fabula.ops.specs import AttentionSpec, LayerSpec


class GPT2(Family):
    """Radford et al. 2019. Its checkpoints store matrices [in, out]."""

    model_types = ("gpt2",)
    rotary = False
    aliases = MappingProxyType(
        {
            "hidden_size": "n_embd",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "max_position_embeddings": "n_positions",
        }
    )
    defaults = MappingProxyType(
        {
            "vocab_size": 50257,
            "n_positions": 1024,
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "n_inner": None,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "scale_attn_weights": True,
            "tie_word_embeddings": True,
            "bos_token_id": 50256,
            "eos_token_id": 50256,
        }
    )

    def __init__(self, config: Settings) -> None:
        require(config, "add_cross_attention", False)
        self.config = config
        self.activation = activation(config, "activation_function")
        self.layers = tuple(LayerSpec(i, self._attention(i)) for i in range(config.num_hidden_layers))

    def _attention(self, index: int) -> AttentionSpec:
        config = self.config
        head_dim = config.hidden_size // config.num_attention_heads
        scale = head_dim**-0.5 if config.scale_attn_weights else 1.0
        if config.get("scale_attn_by_inverse_layer_idx"):
            scale /= index + 1
        return AttentionSpec(config.num_attention_heads, config.num_attention_heads, head_dim, scale)

    def weights(self) -> Mapping[str, Entry]:
        vocabulary, width = self.config.vocab_size, self.config.hidden_size
        return {
            "embed": Entry("transformer.wte.weight", (vocabulary, width)),
            "positions": Entry("transformer.wpe.weight", (self.config.max_position_embeddings, width)),
            "norm": Entry("transformer.ln_f.weight", (width,)),
            "norm_bias": Entry("transformer.ln_f.bias", (width,)),
            "head": Entry("lm_head.weight", (vocabulary, width), tied="embed"),
        }

    def layer_weights(self, layer: LayerSpec) -> Mapping[str, Entry]:
        width = self.config.hidden_size
        inner = self.config.n_inner or 4 * width
        prefix = "transformer.h.{layer}."
        vectors = {"attention_norm": "ln_1", "mlp_norm": "ln_2"}
        matrices = {
            "qkv": ("attn.c_attn", (width, 3 * width)),
            "o": ("attn.c_proj", (width, width)),
            "up": ("mlp.c_fc", (width, inner)),
            "down": ("mlp.c_proj", (inner, width)),
        }
        return {
            **{field: Entry(f"{prefix}{name}.weight", (width,)) for field, name in vectors.items()},
            **{f"{field}_bias": Entry(f"{prefix}{name}.bias", (width,)) for field, name in vectors.items()},
            **{f: Entry(f"{prefix}{name}.weight", shape, transposed=True) for f, (name, shape) in matrices.items()},
            **{f"{f}_bias": Entry(f"{prefix}{name}.bias", shape[1:]) for f, (name, shape) in matrices.items()},
        }

    def embed(self, ops: Ops, w: SimpleNamespace) -> Array:
        return ops.add(ops.embed(w.embed), ops.embed_positions(w.positions))

    def block(self, ops: Ops, x: Array, w: SimpleNamespace, layer: LayerSpec) -> Array:
        width, eps = self.config.hidden_size, self.config.layer_norm_epsilon
        h = ops.layer_norm(x, w.attention_norm, w.attention_norm_bias, eps)
        q, k, v = ops.split(ops.linear(h, w.qkv, w.qkv_bias), (width, width, width))
        x = ops.add(x, ops.linear(ops.attend(layer, q, k, v), w.o, w.o_bias))
        h = ops.layer_norm(x, w.mlp_norm, w.mlp_norm_bias, eps)
        h = ops.activate(ops.linear(h, w.up, w.up_bias), self.activation)
        return ops.add(x, ops.linear(h, w.down, w.down_bias))

    def final(self, ops: Ops, x: Array, w: SimpleNamespace) -> Array:
        return ops.layer_norm(x, w.norm, w.norm_bias, self.config.layer_norm_epsilon)

    def logits(self, ops: Ops, hidden: Array, w: SimpleNamespace) -> Any:
        return ops.linear(hidden, w.head)
