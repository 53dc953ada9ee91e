"""What the native backend's tests are made of: one-operation families, small whole models, and ragged batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fabula.kernels.library import Library, load_library
from fabula.models.families.config import ModelConfig
from fabula.models.families.table import family_for
from fabula.models.weights.native import placed_tensors
from fabula.ops.native import NativeModel
from fabula.ops.protocol import Batch
from fabula.quant.formats import StoredTensor, quantize, stored
from fabula.testing.tiny_model import random_weights

BLOCK = 32
LIBRARY = load_library()
ISAS = () if LIBRARY is None else LIBRARY.isas


class OneOperation:
    """A family without layers: what `forward(ops, x, w)` makes of the rows of `w.embed`."""

    layers = ()

    def __init__(self, forward: Callable[[Any, Any, Any], Any]) -> None:
        self.forward = forward

    def embed(self, ops: Any, w: Any) -> Any:
        return ops.embed(w.embed)

    def final(self, ops: Any, x: Any, w: Any) -> Any:
        return x

    def logits(self, ops: Any, hidden: Any, w: Any) -> Any:
        return self.forward(ops, hidden, w)

    def weights(self) -> Any:
        class Upright:
            transposed = False

            def __getitem__(self, field: str) -> Any:
                return self

        return Upright()


def library_with(isa: str) -> Library:
    """The kernels, forced to an instruction set; a copy of its own."""
    library = load_library()
    assert library is not None
    library.set_isa(isa)
    return library


def run_one(
    forward: Callable[[Any, Any, Any], Any], x: np.ndarray, weights: dict[str, StoredTensor | np.ndarray],
    isa: str | None, threads: int = 2, **options: Any,
) -> np.ndarray:  # fmt: skip
    """`forward` applied to the rows of x, on an instruction set, or by the NumPy twin (None)."""
    tensors = {"embed": stored("embed", x), **weights}
    placed = {(None, name): w if isinstance(w, StoredTensor) else stored(name, w) for name, w in tensors.items()}
    library = None if isa is None else library_with(isa)
    model = NativeModel(OneOperation(forward), placed, library=library, threads=threads, **options)
    return np.array(model.step(one_row(np.arange(len(x))), model.new_cache(4)).logits)


def one_row(tokens: np.ndarray) -> Batch:
    """A step of one row from its start, every position scored."""
    count = len(tokens)
    return make_batch([np.asarray(tokens)], [0], [list(range(-(-count // BLOCK)))], range(count))


def make_batch(
    tokens: Sequence[np.ndarray], first: Sequence[int], tables: Sequence[Sequence[int]], scored: Any
) -> Batch:
    """A step of ragged rows; `scored` counts over all positions of the step."""
    table = np.zeros((len(tables), max(map(len, tables))), np.int32)
    for row, blocks in enumerate(tables):
        table[row, : len(blocks)] = blocks
    return Batch(
        np.concatenate(tokens).astype(np.int32),
        np.cumsum([0, *map(len, tokens)]).astype(np.int32),
        np.array(first, np.int32),
        table,
        np.array(list(scored), np.int32),
    )


CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "num_key_value_heads": 2, "rms_norm_eps": 1e-5},
    "llama_odd": {
        "model_type": "llama", "hidden_size": 40, "intermediate_size": 72, "num_attention_heads": 5,
        "num_key_value_heads": 1, "head_dim": 24, "vocab_size": 83,
    },
    "llama_many_heads": {
        "model_type": "llama", "num_attention_heads": 30, "num_key_value_heads": 1, "head_dim": 8, "hidden_size": 32,
    },
    "llama_wide_heads": {"model_type": "llama", "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 256},
    "llama_odd_heads": {"model_type": "llama", "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 18},
    "mistral_window": {"model_type": "mistral", "sliding_window": 7, "num_key_value_heads": 4},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2},
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 40},
    "gemma3": {
        "model_type": "gemma3_text", "num_key_value_heads": 1, "head_dim": 32, "sliding_window": 9,
        "sliding_window_pattern": 2, "query_pre_attn_scalar": 32, "final_logit_softcapping": 20.0,
        "tie_word_embeddings": True,
    },
    "gpt2": {"model_type": "gpt2", "n_embd": 48, "n_head": 3, "n_layer": 2, "n_positions": 256, "vocab_size": 70},
}  # fmt: skip
SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96,
    "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip


def small_model(name: str, format: str = "F32", isa: str | None = None, **options: Any) -> NativeModel:
    """A model of a family with random weights; matrices in `format`. isa None: the NumPy twin."""
    values = CONFIGS[name] if name == "gpt2" else {**SIZES, **CONFIGS[name]}
    family = family_for(ModelConfig.from_dict(values))
    tensors = {}
    for key, weight in random_weights(values, seed=3).items():
        tensors[key] = stored(key, weight) if weight.ndim < 2 else as_format(key, format, weight)
    library = None if isa is None else library_with(isa)
    return NativeModel(family, placed_tensors(family, tensors), library=library, **{"threads": 2, **options})


def as_format(name: str, format: str, weight: np.ndarray) -> StoredTensor:
    """The weight in a format that can be written."""
    return StoredTensor(name, format, weight.shape, quantize(format, weight))


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference over the largest number."""
    return float(np.abs(actual.astype(np.float64) - expected).max() / np.abs(expected).max())
