"""Small random models of every class in transformers' text generation mappings, built from configurations cut short."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

CAUSAL, SEQ2SEQ = "causal", "seq2seq"
VOCABULARY = 128

# Keys that configurations have in common, and what they become where they are there.
SHORT: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "text_vocab_size", "encoder_vocab_size"), VOCABULARY),
    **dict.fromkeys(("src_vocab_size", "tgt_vocab_size", "decoder_vocab_size", "t2u_vocab_size"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "dim", "embed_dim", "embedding_size"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "num_decoder_attention_heads", "num_encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "n_kv_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "ffn_hidden_size"), 32),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_target_positions", "max_source_positions"), 512),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2),
    "head_dim": 16,
    "d_kv": 16,
    "rotary_dim": 8,
    "full_attention_interval": 2,
    "initializer_range": 0.1,
    "init_std": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}

# What a kind of model needs beside that, or instead; None leaves a key as its configuration has it.
EXTRA: dict[str, dict[str, Any]] = {
    "axk1": {"n_group": 1, "topk_group": 1},
    "bailing_hybrid": {"layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "dots1": {"n_shared_experts": 1},
    "dots3_note": {"num_key_value_heads": 4},
    "dots3_note_text": {"num_key_value_heads": 4},
    "encoder-decoder": {"decoder": {"is_decoder": True, "add_cross_attention": True}},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0}},
    "gemma4_unified_assistant": {"text_config": {"num_kv_shared_layers": 0}},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"axial_pos_embds_dim": (32, 32), "axial_pos_shape": (16, 32), "attn_layers": ["local", "lsh"]},
    "xlstm": {"qk_dim_factor": 1.0},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"head_dim": 8},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
}

# Attention through a short vector, whose heads have two parts: the keys of all such configurations.
LATENT = {
    "kv_lora_rank": 16,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
    "head_dim": None,
}


def model_types(mapping: str) -> dict[str, str]:
    """The model types of a mapping, with the names of their classes."""
    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if mapping == CAUSAL else MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    return {kind: name if isinstance(name, str) else name[0] for kind, name in names.items()}


def tiny_config(kind: str) -> Any:
    """The configuration of a small model of that type."""
    made = type(transformers.AutoConfig.for_model(kind))
    config = made(**_short(made(), EXTRA.get(kind, {})))
    text = config.get_text_config(decoder=True)
    if set(getattr(text, "layer_types", None) or ()) == {"linear_attention"} and "layer_types" in vars(text):
        text.layer_types = [*text.layer_types[:-1], "full_attention"]  # cut short, it lost its layers that attend
    return config


def tiny_model(kind: str, mapping: str = CAUSAL, seed: int = 0) -> Any:
    """A model of that type with random weights, which never ends by itself."""
    torch.manual_seed(seed)
    auto = transformers.AutoModelForCausalLM if mapping == CAUSAL else transformers.AutoModelForSeq2SeqLM
    config = tiny_config(kind)
    if mapping == CAUSAL and hasattr(config, "is_decoder"):
        config.is_decoder = True
    model = auto.from_config(config, dtype=torch.float32).eval()
    if mapping == SEQ2SEQ:
        _stir(model)
    settings = model.generation_config
    settings.eos_token_id = settings.forced_eos_token_id = settings.forced_bos_token_id = None
    settings.pad_token_id, settings.bos_token_id, settings.num_beams, settings.max_length = 0, 1, 1, None
    return model


@torch.no_grad()
def _stir(model: Any) -> None:
    """Larger matrices, and smaller embeddings: else a decoder whose head is its embeddings repeats its first token."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(4)
    for part in {id(part): part for part in (model.get_input_embeddings(), model.get_output_embeddings())}.values():
        if part is not None and hasattr(part, "weight"):
            part.weight.mul_(0.05)


def _short(config: Any, extra: dict[str, Any]) -> dict[str, Any]:
    """The arguments that make a configuration like this one short, those of its parts too."""
    values = config.to_dict()
    wanted: dict[str, Any] = {**SHORT, **(LATENT if "kv_lora_rank" in values else {})}
    short = {name: value for name, value in wanted.items() if name in values or name in type(config).attribute_map}
    for name in getattr(config, "sub_configs", {}):
        part = getattr(config, name, None)
        if part is not None:
            short[name] = {"model_type": part.model_type, **_short(part, extra.get(name, {}))}
    short.update({name: value for name, value in extra.items() if not isinstance(value, dict) or name not in short})
    return {name: value for name, value in short.items() if value is not None}
