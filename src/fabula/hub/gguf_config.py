"""A GGUF file's metadata as the configuration that a Hugging Face checkpoint of the same model has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fabula.errors import ModelFileError, NotSupportedError
from fabula.hub.gguf import GgufFile
from fabula.hub.gguf_keys import Keys
from fabula.hub.gguf_rope import by_layer_type, rope_parameters

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
GEMMA3_PATTERN = 6  # five layers with a window, one without
GEMMA3_27B_LAYERS = 62  # the one size whose attention is scaled by hidden_size / heads


def architecture(file: GgufFile) -> str:
    """The file's architecture, one of ARCHITECTURES; raises ModelFileError."""
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ModelFileError(
            f"{file.path}: key 'general.architecture' must be one of {', '.join(ARCHITECTURES)}, got {name!r:.60}. "
            "Other architectures are not supported."
        )
    return name


def model_config(file: GgufFile) -> dict[str, Any]:
    """What config.json would hold."""
    keys = Keys(file.path, file.metadata, architecture(file))
    if file.metadata.get(keys.name("expert_count")):
        raise NotSupportedError(
            f"{file.path}: key {keys.name('expert_count')!r} must be absent: experts are not supported."
        )
    if file.metadata.get("split.count") not in (None, 0, 1):
        raise NotSupportedError(
            f"{file.path}: key 'split.count' must be absent or 1, got {file.metadata['split.count']!r:.60}. "
            "Join the files with llama.cpp's llama-gguf-split --merge first."
        )
    return ARCHITECTURES[keys.architecture](file, keys)


def generation_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What generation_config.json would hold: the special tokens."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    return {name: config[name] for name in names if config.get(name) is not None}


def _special_tokens(keys: Keys, vocabulary: int) -> dict[str, Any]:
    """Ends of turns and messages end a text as the end of sequence does."""
    ends = [keys.token(f"{name}_token_id", vocabulary) for name in ("eos", "eot", "eom")]
    unique = list(dict.fromkeys(end for end in ends if end is not None))
    return {
        "bos_token_id": keys.token("bos_token_id", vocabulary),
        "eos_token_id": unique[0] if len(unique) == 1 else unique or None,
        "pad_token_id": keys.token("padding_token_id", vocabulary),
    }


def _vocabulary(file: GgufFile, keys: Keys) -> int:
    """Rows of the embedding; the tokenizer may have fewer tokens, not more."""
    if EMBEDDING not in file.tensors:
        raise ModelFileError(f"{file.path}: tensor {EMBEDDING!r} must be there, and is not. Convert the model again.")
    rows = file.tensors[EMBEDDING].shape[0]
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list) and len(tokens) > rows:
        keys.refuse(
            "tokenizer.ggml.tokens", f"at most {rows} tokens, one a row of {EMBEDDING!r}", f"{len(tokens)} tokens"
        )
    return rows


def _outer(file: GgufFile, keys: Keys, class_name: str) -> dict[str, Any]:
    """What every model has."""
    vocabulary = _vocabulary(file, keys)
    return {
        "architectures": [class_name],
        "vocab_size": vocabulary,
        "tie_word_embeddings": HEAD not in file.tensors,
        **_special_tokens(keys, vocabulary),
    }


def _heads(keys: Keys) -> tuple[int, int, int]:
    """The model's width, its heads, and the width of each, for queries, keys and values."""
    width, heads = keys.size("embedding_length"), keys.size("attention.head_count")
    head_dim = keys.size("attention.key_length", width // heads)
    if keys.size("attention.value_length", head_dim) != head_dim:
        keys.refuse(keys.name("attention.value_length"), f"the keys' {head_dim}", keys.size("attention.value_length"))
    return width, heads, head_dim


def _decoder(file: GgufFile, keys: Keys, class_name: str) -> dict[str, Any]:
    """What Llama and its relatives have."""
    (width, heads, head_dim), positions = _heads(keys), keys.size("context_length")
    return {
        **_outer(file, keys, class_name),
        "hidden_size": width,
        "intermediate_size": keys.size("feed_forward_length"),
        "num_hidden_layers": keys.size("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": keys.size("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": positions,
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "rope_parameters": rope_parameters(file, keys, head_dim, positions),
    }


def _llama(file: GgufFile, keys: Keys) -> dict[str, Any]:
    """GGUF calls Mistral a llama too: what sets it apart is its window."""
    biases = {"attention_bias": "blk.0.attn_q.bias" in file.tensors, "mlp_bias": "blk.0.ffn_up.bias" in file.tensors}
    window = keys.size("attention.sliding_window", None)
    if window is None:
        return {"model_type": "llama", **_decoder(file, keys, "LlamaForCausalLM"), **biases}
    return {"model_type": "mistral", **_decoder(file, keys, "MistralForCausalLM"), "sliding_window": window}


def _qwen2(file: GgufFile, keys: Keys) -> dict[str, Any]:
    window = {"use_sliding_window": False, "sliding_window": None}
    return {"model_type": "qwen2", **_decoder(file, keys, "Qwen2ForCausalLM"), **window}


def _qwen3(file: GgufFile, keys: Keys) -> dict[str, Any]:
    biases = {"attention_bias": "blk.0.attn_q.bias" in file.tensors}
    window = {"use_sliding_window": False, "sliding_window": None}
    return {"model_type": "qwen3", **_decoder(file, keys, "Qwen3ForCausalLM"), **biases, **window}


def _gemma3(file: GgufFile, keys: Keys) -> dict[str, Any]:
    config = _decoder(file, keys, "Gemma3ForCausalLM")
    del config["hidden_act"]
    layers, width, heads = config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"]
    pattern = keys.size("attention.sliding_window_pattern", GEMMA3_PATTERN)
    if f"{keys.architecture}.rope.freq_base" not in file.metadata:
        config["rope_parameters"]["rope_theta"] = 1000000.0
    return {
        "model_type": "gemma3_text",
        **config,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": width // heads if layers == GEMMA3_27B_LAYERS else config["head_dim"],
        "sliding_window": keys.size("attention.sliding_window"),
        "layer_types": ["sliding_attention" if (i + 1) % pattern else "full_attention" for i in range(layers)],
        "rope_parameters": by_layer_type(config["rope_parameters"], keys.number("rope.freq_base_swa", 10000.0)),
        "attention_bias": False,
        "final_logit_softcapping": keys.number("final_logit_softcapping", None),
        "attn_logit_softcapping": keys.number("attn_logit_softcapping", None),
    }


def _gpt2(file: GgufFile, keys: Keys) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        **_outer(file, keys, "GPT2LMHeadModel"),
        "n_embd": keys.size("embedding_length"),
        "n_inner": keys.size("feed_forward_length"),
        "n_layer": keys.size("block_count"),
        "n_head": keys.size("attention.head_count"),
        "n_positions": keys.size("context_length"),
        "activation_function": "gelu_new",
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon"),
    }


def _t5(file: GgufFile, keys: Keys) -> dict[str, Any]:
    """Versions 1.0 and 1.1, which gates tell apart, and mT5, which is as 1.1.

    Where the head is the table, as in 1.0, scores are scaled as in transformers; llama.cpp leaves them as they are.
    """
    if any(f"{side}.blk.1.attn_rel_b.weight" in file.tensors for side in ("enc", "dec")):
        raise NotSupportedError(
            f"{file.path}: tensor 'enc.blk.1.attn_rel_b.weight' must be absent: models whose layers have each a bias "
            "of their own (UMT5) are not supported."
        )
    outer, layers = _outer(file, keys, "T5ForConditionalGeneration"), keys.size("block_count")
    width, heads, head_dim = _heads(keys)
    start = keys.own_token("decoder_start_token_id", outer["vocab_size"])
    return {
        "model_type": "t5",
        **outer,
        "is_encoder_decoder": True,
        "decoder_start_token_id": outer["pad_token_id"] if start is None else start,
        "d_model": width,
        "d_kv": head_dim,
        "d_ff": keys.size("feed_forward_length"),
        "num_layers": layers,
        "num_decoder_layers": keys.size("decoder_block_count", layers),
        "num_heads": heads,
        "n_positions": keys.size("context_length"),
        "relative_attention_num_buckets": keys.size("attention.relative_buckets_count"),
        "layer_norm_epsilon": keys.number("attention.layer_norm_rms_epsilon"),
        "feed_forward_proj": "gated-gelu" if "enc.blk.0.ffn_gate.weight" in file.tensors else "relu",
    }


ARCHITECTURES: Mapping[str, Callable[[GgufFile, Keys], dict[str, Any]]] = MappingProxyType(
    {"llama": _llama, "qwen2": _qwen2, "qwen3": _qwen3, "gemma3": _gemma3, "gpt2": _gpt2, "t5": _t5}
)
