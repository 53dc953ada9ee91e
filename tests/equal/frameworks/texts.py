"""A call of a real model: a few texts padded on the left, some rows greedy and some drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fabula import AutoTokenizer, GenerationConfig
from tests.equal.frameworks.doors import Ids
from tests.equal.prompts import PROMPTS

DRAWN = {"do_sample": True, "temperature": 0.9, "top_k": 50, "top_p": 0.95}
# Of each row its seed, which greedy ones do not need, and its settings.
MIXED = ((0, {"do_sample": False}), (0, {"do_sample": False}), (5, DRAWN), (6, DRAWN))
NEW = 12


def texts_of(path: Path) -> Ids:
    """A prompt for each row of MIXED."""
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    given = tokenizer(PROMPTS[: len(MIXED)], padding=True, return_tensors="np")
    return given["input_ids"].astype(np.int32), given["attention_mask"].astype(np.int32)


def mixed_call(rows: Sequence[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """The settings of some rows of MIXED as one call."""
    configs = [GenerationConfig(max_new_tokens=NEW, pad_token_id=0, **settings) for _, settings in rows]
    return {"generation_config": configs, "seed": [seed for seed, _ in rows]}
