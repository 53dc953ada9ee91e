"""T5, its versions 1.0 and 1.1, and Flan-T5: an encoder and a decoder whose positions are distances."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

from fabula.errors import ModelFileError
from fabula.models.families.family import EncoderDecoder, Entry, Stack, activation, require
from fabula.models.families.settings import Settings
from fabula.ops.protocol import Array, Ops
from fabula.ops.specs import AttentionSpec, BiasSpec, LayerSpec


class T5Stack(Stack):
    """One side; the encoder as it is. Scores are not scaled, and the first layer's bias serves all layers.

    Raffel et al. 2020, section 2.1.
    """

    side = "encoder"
    places = MappingProxyType({"attention": "0.SelfAttention", "mlp": "1.DenseReluDense"})  # "{part of a layer}.{name}"

    def __init__(self, config: Settings) -> None:
        self.config = config
        self.activation = activation(config, "dense_act_fn")
        spec = _attention(config, causal=False)
        self.layers = tuple(LayerSpec(i, spec) for i in range(config.num_layers))

    def weights(self) -> Mapping[str, Entry]:
        table, width = (self.config.vocab_size, self.config.d_model), (self.config.d_model,)
        return {
            "embed": Entry("shared.weight", table),
            "embed_tokens": Entry(f"{self.side}.embed_tokens.weight", table, tied="embed", own=True),
            "norm": Entry(f"{self.side}.final_layer_norm.weight", width),
        }

    def layer_weights(self, layer: LayerSpec) -> Mapping[str, Entry]:
        config, block = self.config, f"{self.side}.block.{{layer}}.layer."
        inner = (("gate", "wi_0"), ("up", "wi_1")) if config.is_gated_act else (("up", "wi"),)
        first = f"{self.side}.block.0.layer.{self.places['attention']}.relative_attention_bias.weight"
        return {
            **self.attention_weights("attention", ""),
            "bias": Entry(first, (config.relative_attention_num_buckets, config.num_heads), table=True),
            "mlp_norm": Entry(f"{block}{self.places['mlp'][0]}.layer_norm.weight", (config.d_model,)),
            **{
                field: Entry(f"{block}{self.places['mlp']}.{name}.weight", (config.d_ff, config.d_model))
                for field, name in inner
            },
            "down": Entry(f"{block}{self.places['mlp']}.wo.weight", (config.d_model, config.d_ff)),
        }

    def attention_weights(self, part: str, prefix: str) -> Mapping[str, Entry]:
        """The norm and the four matrices of one attention, their fields prefixed."""
        width, heads = self.config.d_model, self.config.num_heads * self.config.d_kv
        place = self.places[part]
        block = f"{self.side}.block.{{layer}}.layer."
        return {
            f"{part}_norm": Entry(f"{block}{place[0]}.layer_norm.weight", (width,)),
            **{f"{prefix}{name}": Entry(f"{block}{place}.{name}.weight", (heads, width)) for name in "qkv"},
            f"{prefix}o": Entry(f"{block}{place}.o.weight", (width, heads)),
        }

    def embed(self, ops: Ops, w: SimpleNamespace) -> Array:
        return ops.embed(w.embed_tokens)

    def block(self, ops: Ops, x: Array, w: SimpleNamespace, layer: LayerSpec) -> Array:
        return self.feed_forward(ops, self.attend(ops, x, w, layer), w)

    def attend(self, ops: Ops, x: Array, w: SimpleNamespace, layer: LayerSpec) -> Array:
        """The half of a layer that attends to the row itself."""
        h = self.norm(ops, x, w.attention_norm)
        q, k, v = ops.linear(h, w.q), ops.linear(h, w.k), ops.linear(h, w.v)
        return ops.add(x, ops.linear(ops.attend(layer, q, k, v, w.bias), w.o))

    def feed_forward(self, ops: Ops, x: Array, w: SimpleNamespace) -> Array:
        """The half of a layer that sees each position for itself; version 1.1 has a gate."""
        h = self.norm(ops, x, w.mlp_norm)
        if self.config.is_gated_act:
            h = ops.gated_mlp(h, w.gate, w.up, self.activation)
        else:
            h = ops.activate(ops.linear(h, w.up), self.activation)
        return ops.add(x, ops.linear(h, w.down))

    def norm(self, ops: Ops, x: Array, weight: Any) -> Array:
        """Over the root mean square."""
        return ops.rms_norm(x, weight, self.config.layer_norm_epsilon)

    def final(self, ops: Ops, x: Array, w: SimpleNamespace) -> Array:
        return self.norm(ops, x, w.norm)


class T5(T5Stack, EncoderDecoder):
    """The decoder and the head, and the encoder with them. Version 1.0 has one table for ids and head, and scales."""

    side = "decoder"
    places = MappingProxyType(
        {"attention": "0.SelfAttention", "memory": "1.EncDecAttention", "mlp": "2.DenseReluDense"}
    )
    model_types = ("t5",)
    rotary = False
    aliases = MappingProxyType(
        {
            "hidden_size": "d_model",
            "intermediate_size": "d_ff",
            "num_hidden_layers": "num_layers",
            "num_attention_heads": "num_heads",
            "num_key_value_heads": "num_heads",
            "head_dim": "d_kv",
        }
    )
    defaults = MappingProxyType(
        {
            "vocab_size": 32128,
            "d_model": 512,
            "d_kv": 64,
            "d_ff": 2048,
            "num_layers": 6,
            "num_heads": 8,
            "relative_attention_num_buckets": 32,
            "relative_attention_max_distance": 128,
            "layer_norm_epsilon": 1e-6,
            "feed_forward_proj": "relu",
            "is_encoder_decoder": True,
            "pad_token_id": 0,
            "eos_token_id": 1,
        }
    )

    def __init__(self, config: Settings) -> None:
        require(config, "is_encoder_decoder", True)
        require(config, "is_decoder", False)
        _check_buckets(config)
        self.config = config
        self.activation = activation(config, "dense_act_fn")
        self.encoder = T5Stack(config)
        memory = AttentionSpec(config.num_heads, config.num_heads, config.d_kv, 1.0, causal=False, source="memory")
        spec = _attention(config, causal=True)
        self.layers = tuple(LayerSpec(i, spec, memory=memory) for i in range(config.num_decoder_layers))

    @classmethod
    def settled(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The keys that transformers derives: a file's own stand."""
        kind = values.get("feed_forward_proj")
        gate, _, name = kind.rpartition("-") if isinstance(kind, str) else ("?", "", "")
        if gate not in ("", "gated"):
            raise ModelFileError(
                f"feed_forward_proj must be an activation, or gated- and an activation, got {kind!r:.60}. "
                "Repair config.json or fetch it again."
            )
        scaled = values.get("tie_word_embeddings") is not False
        return {
            "num_decoder_layers": values["num_layers"],
            "dense_act_fn": "gelu_new" if kind == "gated-gelu" else name,
            "is_gated_act": gate == "gated",
            "scale_decoder_outputs": scaled,
            **{key: value for key, value in values.items() if key != "num_decoder_layers" or value is not None},
        }

    def weights(self) -> Mapping[str, Entry]:
        table = (self.config.vocab_size, self.config.d_model)
        return {**super().weights(), "head": Entry("lm_head.weight", table, tied="embed", own=True)}

    def layer_weights(self, layer: LayerSpec) -> Mapping[str, Entry]:
        return {**super().layer_weights(layer), **self.attention_weights("memory", "memory_")}

    def block(self, ops: Ops, x: Array, w: SimpleNamespace, layer: LayerSpec) -> Array:
        x = self.attend(ops, x, w, layer)
        found = ops.attend_memory(layer, ops.linear(self.norm(ops, x, w.memory_norm), w.memory_q))
        return self.feed_forward(ops, ops.add(x, ops.linear(found, w.memory_o)), w)

    def memory(self, ops: Ops, encoded: Array, w: SimpleNamespace, layer: LayerSpec) -> tuple[Array, Array]:
        return ops.linear(encoded, w.memory_k), ops.linear(encoded, w.memory_v)

    def logits(self, ops: Ops, hidden: Array, w: SimpleNamespace) -> Any:
        if self.config.scale_decoder_outputs:
            hidden = ops.scale(hidden, self.config.d_model**-0.5)
        return ops.linear(hidden, w.head)


def _attention(config: Settings, causal: bool) -> AttentionSpec:
    bias = BiasSpec(config.relative_attention_num_buckets, config.relative_attention_max_distance)
    return AttentionSpec(config.num_heads, config.num_heads, config.d_kv, 1.0, causal=causal, bias=bias)


def _check_buckets(config: Settings) -> None:
    """Each direction needs a bucket for the distance 0 and one for those behind."""
    buckets, far = config.relative_attention_num_buckets, config.relative_attention_max_distance
    if buckets < 4:
        raise ModelFileError(
            f"relative_attention_num_buckets must be 4 or more, got {buckets}. Repair config.json or fetch it again."
        )
    if far <= buckets // 2:
        raise ModelFileError(
            f"relative_attention_max_distance must be more than half of relative_attention_num_buckets ({buckets}), "
            f"got {far}. Repair config.json or fetch it again."
        )
