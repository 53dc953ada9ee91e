"""A GGUF file's tensors under Hugging Face's names, in the layout that those names stand for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from fabula.errors import ModelFileError
from fabula.hub.gguf import GgufFile, GgufTensor
from fabula.quant.formats import StoredTensor, stored
from fabula.quant.lazy import LazyTensors

Layout = Callable[[StoredTensor, Mapping[str, Any]], StoredTensor]  # a tensor of the file and the configuration
NAME = re.compile(r"((?:enc\.|dec\.)?)(?:blk\.(0|[1-9][0-9]{0,4})\.)?([a-z_]+)\.(weight|bias)")
# The first is read by gguf_rope; the other lies in old T5 checkpoints, and nobody ever read it.
NO_WEIGHTS = ("rope_freqs.weight", "dec.blk.0.cross_attn_rel_b.weight")


def as_stored(tensor: StoredTensor, config: Mapping[str, Any]) -> StoredTensor:
    """Unchanged."""
    return tensor


def heads_in_halves(count: str) -> Layout:
    """Llama's queries and keys: GGUF pairs features 2i and 2i + 1 of a head for rope, Hugging Face i and i + half."""

    def layout(tensor: StoredTensor, config: Mapping[str, Any]) -> StoredTensor:
        rows, heads = tensor.shape[0], config[count]
        if rows % (2 * heads):
            raise ModelFileError(
                f"tensor {tensor.name!r} must have an even number of rows for each of {heads} heads, got {rows} rows. "
                "The file is damaged, or its head counts are wrong: fetch or convert it again."
            )
        return tensor.rows(np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1))

    return layout


def less_one(tensor: StoredTensor, config: Mapping[str, Any]) -> StoredTensor:
    """Gemma's norms: GGUF stores what is multiplied with, Hugging Face that less one."""
    return stored(tensor.name, tensor.dequantize() - np.float32(1))


def transpose(tensor: StoredTensor, config: Mapping[str, Any]) -> StoredTensor:
    """GPT-2's matrices: GGUF stores (out, in), Hugging Face (in, out); kept, and marked."""
    return replace(tensor, transposed=len(tensor.shape) > 1)


@dataclass(frozen=True, slots=True)
class Names:
    """One architecture: GGUF's stems -> Hugging Face's, and what happens to a tensor on the way."""

    outer: Mapping[str, str]
    layer: Mapping[str, str]
    prefix: str  # of a layer's tensors; "{}", here or in their names, is its number
    layouts: Mapping[str, Layout] = field(default_factory=dict)  # by GGUF's stem


_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_GEMMA3 = {
    **_LAYER,
    **_HEAD_NORMS,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_GEMMA3_NORMS = ("output_norm", "attn_norm", "attn_q_norm", "attn_k_norm", "post_attention_norm", "ffn_norm")
_GPT2_OUTER = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}
_GPT2_LAYER = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_DECODER = "model.layers.{}."
_T5_OUTER = {
    "token_embd": "shared",
    "enc.output_norm": "encoder.final_layer_norm",
    "dec.output_norm": "decoder.final_layer_norm",
    "output": "lm_head",
}
_LLAMA_LAYOUTS = {"attn_q": heads_in_halves("num_attention_heads"), "attn_k": heads_in_halves("num_key_value_heads")}
_GPT2_LAYOUTS = dict.fromkeys(("attn_qkv", "attn_output", "ffn_up", "ffn_down"), transpose)


def _t5_attention(stem: str, place: str, name: str) -> dict[str, str]:
    """One attention of a layer and its norm."""
    parts = {**{f"{stem}_{part}": f"{name}.{part}" for part in "qkvo"}, f"{stem}_norm": "layer_norm"}
    return {gguf: f"{place}.{part}" for gguf, part in parts.items()}


def _t5_side(gguf: str, side: str, parts: int) -> dict[str, str]:
    """A layer of the encoder or the decoder, whose last of so many parts is the gated one."""
    first, last = (f"{side}.block.{{}}.layer.{part}" for part in (0, parts - 1))
    names = {
        **_t5_attention("attn", first, "SelfAttention"),
        "attn_rel_b": f"{first}.SelfAttention.relative_attention_bias",
        "ffn_norm": f"{last}.layer_norm",
        "ffn_gate": f"{last}.DenseReluDense.wi_0",
        "ffn_up": f"{last}.DenseReluDense.wi_1",
        "ffn_down": f"{last}.DenseReluDense.wo",
    }
    return {f"{gguf}.{stem}": name for stem, name in names.items()}


_T5_LAYER = {
    **_t5_side("enc", "encoder", 2),
    **_t5_side("dec", "decoder", 3),
    **_t5_attention("dec.cross_attn", "decoder.block.{}.layer.1", "EncDecAttention"),
}

NAMES: Mapping[str, Names] = MappingProxyType(
    {
        "llama": Names(_OUTER, _LAYER, _DECODER, _LLAMA_LAYOUTS),
        "qwen2": Names(_OUTER, _LAYER, _DECODER),
        "qwen3": Names(_OUTER, {**_LAYER, **_HEAD_NORMS}, _DECODER),
        "gemma3": Names(_OUTER, _GEMMA3, _DECODER, dict.fromkeys((*_GEMMA3_NORMS, "post_ffw_norm"), less_one)),
        "gpt2": Names(_GPT2_OUTER, _GPT2_LAYER, "transformer.h.{}.", _GPT2_LAYOUTS),
        "t5": Names(_T5_OUTER, _T5_LAYER, ""),
    }
)


def names_for(architecture: str, config: Mapping[str, Any]) -> Names:
    """An architecture's; T5 without gates calls its one matrix otherwise."""
    names = NAMES[architecture]
    if config.get("feed_forward_proj") != "relu":
        return names
    return replace(names, layer={gguf: name.replace(".wi_1", ".wi") for gguf, name in names.layer.items()})


class GgufTensors(LazyTensors):
    """A file's weights by Hugging Face's names; a weight is brought into its layout when it is asked for."""

    def __init__(self, file: GgufFile, architecture: str, config: Mapping[str, Any]) -> None:
        self._config = config
        names = names_for(architecture, config)
        self._places = {
            name: (tensor, layout)
            for tensor in file.tensors.values()
            if tensor.name not in NO_WEIGHTS
            for name, layout in [_place(file, names, tensor)]
        }
        super().__init__(self._places)

    def __getitem__(self, name: str) -> StoredTensor:
        tensor, layout = self._places[name]
        return layout(StoredTensor(name, tensor.format, tensor.shape, tensor.data), self._config)


def _place(file: GgufFile, names: Names, tensor: GgufTensor) -> tuple[str, Layout]:
    """A tensor's name in a Hugging Face checkpoint, and the layout it needs there."""
    match = NAME.fullmatch(tensor.name)
    side, number, stem, kind = match.groups() if match else ("", None, "", "")
    place = side + stem
    name = names.outer.get(place) if number is None else names.layer.get(place)
    if name is None:
        raise ModelFileError(
            f"{file.path}: tensor {tensor.name!r} must be one that its architecture has, and is not known. "
            "Fabula would compute something else without it; convert the model again, or report it."
        )
    whole = name if number is None else f"{names.prefix}{name}".format(number)
    return f"{whole}.{kind}", names.layouts.get(place, as_stored)
