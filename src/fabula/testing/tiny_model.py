"""A whole model directory in a few kilobytes: random Llama weights, a tokenizer of bytes, a chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from fabula.models.families.config import ModelConfig
from fabula.models.families.table import family_for
from fabula.models.weights.table import placed_entries

SPECIAL = ("<|end|>", "<|begin|>", "<|pad|>")  # the ids after the 256 bytes
TEMPLATE = (
    "{% for message in messages %}<|begin|>{{ message.role }}\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 256 + len(SPECIAL),
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "eos_token_id": 256,
    "bos_token_id": 257,
    "pad_token_id": 258,
}


def write_tiny_model(folder: Path, seed: int = 0, **config: Any) -> Path:
    """Writes a model directory as transformers would; `config` changes keys of CONFIG. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {**CONFIG, **config}
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    save_file(random_weights(values, seed), folder / "model.safetensors", metadata={"format": "pt"})
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


def random_weights(config: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """A checkpoint's float32 tensors by name: matrices that keep the size of what they are given, norms near one."""
    generator = np.random.default_rng(seed)
    family = family_for(ModelConfig.from_dict(config))
    weights = {}
    for _, _, entry in placed_entries(family):
        if len(entry.shape) == 1:
            weight = 1 + 0.1 * generator.standard_normal(entry.shape)
        else:
            weight = generator.standard_normal(entry.shape) * entry.shape[-1] ** -0.5
        weights[entry.name] = weight.astype(np.float32)
    return weights


def byte_tokenizer() -> Tokenizer:
    """A tokenizer of the `tokenizers` library whose tokens are the 256 bytes and three special ones: id = byte."""
    spelled = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {spell: byte for byte, spell in enumerate(_in_byte_order(spelled))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def _in_byte_order(alphabet: list[str]) -> list[str]:
    """The byte-level alphabet by the byte that each letter stands for: itself, or one that cannot be printed."""
    itself = [letter for letter in alphabet if ord(letter) < 256]
    moved = iter(sorted((letter for letter in alphabet if ord(letter) >= 256), key=ord))
    kept = {ord(letter): letter for letter in itself}
    return [kept.get(byte) or next(moved) for byte in range(256)]


TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": SPECIAL[0],
    "bos_token": SPECIAL[1],
    "pad_token": SPECIAL[2],
    "clean_up_tokenization_spaces": False,
    "model_max_length": 512,
}
