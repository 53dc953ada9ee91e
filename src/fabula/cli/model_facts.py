"""What is known of a checkpoint without computing: shape, formats, and the memory that it will take."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from typing import Any

from fabula.hub.checkpoint import Checkpoint
from fabula.models.families.config import ModelConfig
from fabula.models.families.family import Family
from fabula.models.families.table import family_for


def model_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """The facts, in the order in which they are shown."""
    config = ModelConfig.from_dict(checkpoint.config)
    family = family_for(config)
    tensors = [checkpoint.tensors[name] for name in checkpoint.tensors]
    formats = Counter(tensor.format for tensor in tensors)
    weight_bytes = sum(tensor.data.nbytes for tensor in tensors)
    position_bytes = cache_bytes_a_position(family, formats)
    context = config.get("max_position_embeddings")  # None: positions are distances, and have no end
    return {
        "source": checkpoint.source,
        "path": str(checkpoint.path),
        "architecture": config.model_type,
        "parameters": sum(math.prod(tensor.shape) for tensor in tensors),
        "formats": {name: f"{count} tensor{'s' * (count > 1)}" for name, count in formats.most_common()},
        "layers": len(family.layers),
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "key_value_heads": config.num_key_value_heads,
        "head_width": config.head_dim,
        "vocabulary": config.vocab_size,
        "context": context,
        "sliding_window": sliding_window(family),
        "chat_template": has_chat_template(checkpoint),
        "weight_bytes": weight_bytes,
        "cache_bytes_a_token": position_bytes,
        "cache_bytes_full_context": None if context is None else position_bytes * context,
        "memory_bytes_at_4096_tokens": weight_bytes + position_bytes * min(4096, context or 4096),
    }


def cache_bytes_a_position(family: Family, formats: Collection[str]) -> int:
    """Keys and values of all layers that one position of a row leaves behind: in 32 bits where all weights are."""
    number = 4 if set(formats) == {"F32"} else 2
    return sum(2 * spec.kv_heads * spec.head_dim * number for spec in (layer.attention for layer in family.layers))


def sliding_window(family: Family) -> str | None:
    """Its width, and how many layers have it."""
    windows = [layer.attention.window for layer in family.layers if layer.attention.window]
    return f"{windows[0]} positions in {len(windows)} of {len(family.layers)} layers" if windows else None


def has_chat_template(checkpoint: Checkpoint) -> bool:
    """Whether `--chat` and `fabula chat` know the model's format."""
    files = checkpoint.tokenizer
    return bool(files and (files.chat_template or files.tokenizer_config.get("chat_template")))
