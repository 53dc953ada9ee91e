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
LAYER = re.compile(r"blk\.(0|[1-9][0-9]{0,4})\.([a-z_]+)\.(weight|bias)")
OUTER = re.compile(r"([a-z_]+)\.(weight|bias)")
DERIVED = ("rope_freqs.weight",)  # read by gguf_rope; no weight of the model


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
    prefix: str  # of a layer's tensors, with "{}" for its number
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
_LLAMA_LAYOUTS = {"attn_q": heads_in_halves("num_attention_heads"), "attn_k": heads_in_halves("num_key_value_heads")}
_GPT2_LAYOUTS = dict.fromkeys(("attn_qkv", "attn_output", "ffn_up", "ffn_down"), transpose)

NAMES: Mapping[str, Names] = MappingProxyType(
    {
        "llama": Names(_OUTER, _LAYER, _DECODER, _LLAMA_LAYOUTS),
        "qwen2": Names(_OUTER, _LAYER, _DECODER),
        "qwen3": Names(_OUTER, {**_LAYER, **_HEAD_NORMS}, _DECODER),
        "gemma3": Names(_OUTER, _GEMMA3, _DECODER, dict.fromkeys((*_GEMMA3_NORMS, "post_ffw_norm"), less_one)),
        "gpt2": Names(_GPT2_OUTER, _GPT2_LAYER, "transformer.h.{}.", _GPT2_LAYOUTS),
    }
)


class GgufTensors(LazyTensors):
    """A file's weights by Hugging Face's names; a weight is brought into its layout when it is asked for."""

    def __init__(self, file: GgufFile, architecture: str, config: Mapping[str, Any]) -> None:
        self._config = config
        self._places = {
            name: (tensor, layout)
            for tensor in file.tensors.values()
            if tensor.name not in DERIVED
            for name, layout in [_place(file, NAMES[architecture], tensor)]
        }
        super().__init__(self._places)

    def __getitem__(self, name: str) -> StoredTensor:
        tensor, layout = self._places[name]
        return layout(StoredTensor(name, tensor.format, tensor.shape, tensor.data), self._config)


def _place(file: GgufFile, names: Names, tensor: GgufTensor) -> tuple[str, Layout]:
    """A tensor's name in a Hugging Face checkpoint, and the layout it needs there."""
    if match := OUTER.fullmatch(tensor.name):
        stem, kind = match.groups()
        name = names.outer.get(stem)
    elif match := LAYER.fullmatch(tensor.name):
        number, stem, kind = match.groups()
        name = names.prefix.format(number) + names.layer[stem] if stem in names.layer else None
    else:
        name = None
    if name is None:
        raise ModelFileError(
            f"{file.path}: tensor {tensor.name!r} must be one that its architecture has, and is not known. "
            "Fabula would compute something else without it; convert the model again, or report it."
        )
    return f"{name}.{kind}", names.layouts.get(stem, as_stored)
