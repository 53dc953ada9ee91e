"""Small random models with an encoder, written by transformers."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.models.configurations import Case

SMALL_T5 = {
    "vocab_size": 61,
    "d_model": 24,
    "d_kv": 6,
    "d_ff": 40,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.0,
}


def _case(name: str, writer: str = "T5Config", **values: Any) -> Case:
    return Case(name, writer, {**SMALL_T5, **values})


CASES = (
    _case("t5-1.0"),
    _case("t5-1.1", feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    _case("t5-few-buckets", relative_attention_num_buckets=8, relative_attention_max_distance=20, num_decoder_layers=3),
    _case(
        "t5-odd-buckets",
        relative_attention_num_buckets=7,
        relative_attention_max_distance=11,
        num_heads=3,
        d_kv=5,
        num_layers=3,
        num_decoder_layers=1,
        feed_forward_proj="gelu",
    ),
    _case("mt5", "MT5Config"),
    _case("t5-gated-silu", feed_forward_proj="gated-silu", layer_norm_epsilon=1e-3, tie_word_embeddings=False),
)
IDS, MASK = np.random.default_rng(0).integers(3, 50, (3, 9)), np.ones((3, 9), int)  # of texts, padded on either side
MASK[1, :4] = 0
MASK[2, 5:] = 0
TEXTS = {"input_ids": IDS, "attention_mask": MASK}
AFTER = np.random.default_rng(1).integers(3, 50, (3, 5))  # for the decoder
OWN_HEAD = ("t5-1.1", "mt5")  # the head's weights are its own


def uncompiled(model: Any) -> Any:
    """A model in TensorFlow without XLA, whose compiling would cost what all its tests cost, and so without bursts."""
    model.programs.xla = False
    model.burst = model.burst_beams = model.burst_texts = None
    return model


def random_case(seed: int) -> Case:
    """The same sizes and switches, which nobody would choose, for the same seed."""
    random = Random(seed)
    buckets = random.randint(4, 40)
    values = {
        "vocab_size": random.randint(5, 90),
        "d_model": random.randint(2, 40),
        "d_kv": random.randint(1, 12),
        "d_ff": random.randint(1, 60),
        "num_heads": random.randint(1, 5),
        "num_layers": random.randint(1, 4),
        "num_decoder_layers": random.randint(1, 4),
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": buckets // 2 + random.randint(1, 100),
        "layer_norm_epsilon": random.choice([1e-6, 1e-2]),
        "feed_forward_proj": random.choice(["relu", "gelu", "silu", "gated-gelu", "gated-relu", "gated-silu"]),
        "tie_word_embeddings": random.random() < 0.5,
    }
    return Case(f"random-{seed}", random.choice(["T5Config", "MT5Config"]), {**SMALL_T5, **values})


def write(case: Case, directory: Path) -> Any:
    """A random model of transformers, in float32 and eval mode, and its files in `directory`."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(sum(map(ord, case.name)))
    config = getattr(transformers, case.writer)(**case.values)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config, attn_implementation="eager").eval()
    if case.name in OWN_HEAD:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(directory)
    return model
