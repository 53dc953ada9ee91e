"""What PyTorch gives for a call in float32 on the CPU, and how far apart the scores were that decided each token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula.arrays import numpy as host
from fabula.arrays.random import gumbel, split_seed
from tests.equal.frameworks.doors import REFERENCE, Ids, step_by_step

SHOWN = {"return_dict_in_generate": True, "output_scores": True}
SEARCHES = ("num_beams", "penalty_alpha")  # settings whose rows are not decided by scores of their own


@dataclass(frozen=True)
class Reference:
    """A call's answer."""

    output: Any  # with everything that the call shows, and the scores
    rows: list[list[int]]  # new tokens
    gaps: list[list[float]] | None  # of each row and step; None: a search, which nothing excuses

    def since(self, first: int) -> Reference:
        """The rows of the answer from this one on."""
        assert self.gaps is not None
        return Reference(None, self.rows[first:], self.gaps[first:])


def reference_of(model: Any, ids: Ids, call: Mapping[str, Any]) -> Reference:
    """The answer of a model in PyTorch, one step after another."""
    with step_by_step(model):
        output = REFERENCE.generate(model, ids, **call, **SHOWN)
    before = begun(model, ids)
    searches = any(name in call for name in SEARCHES)
    gaps = None if searches else gaps_of(deciding_scores(output.scores, before, call))
    return Reference(output, new_tokens(output.sequences, before), gaps)


def begun(model: Any, ids: Ids) -> np.ndarray:
    """Int["R C"]: the mask of what new tokens stand behind, the prompts or a decoder's start tokens."""
    return np.ones_like(ids[1][:, :1]) if model.is_encoder_decoder else ids[1]


def new_tokens(sequences: Any, before: np.ndarray) -> list[list[int]]:
    """What stands behind the columns of a mask."""
    return np.asarray(sequences)[:, before.shape[1] :].tolist()


def deciding_scores(scores: Any, mask: np.ndarray, call: Mapping[str, Any]) -> np.ndarray:
    """Float32["rows steps V"]: what each row's token was the best of, its scores or those with noise."""
    steps = np.stack([np.asarray(step, np.float32) for step in scores], 1)
    configs = call.get("generation_config", [])  # of each row
    sampled = [one.do_sample for one in configs] or [bool(call.get("do_sample"))] * len(steps)
    if any(sampled):
        steps[sampled] += noise(mask, steps.shape, call)[sampled]
    return steps


def gaps_of(decided: np.ndarray) -> list[list[float]]:
    """The best less the second best, of each row and step."""
    best = np.partition(decided, -2)[..., -2:].astype(np.float64)
    return (best[..., 1] - best[..., 0]).tolist()


def noise(mask: np.ndarray, shape: tuple[int, int, int], call: Mapping[str, Any]) -> np.ndarray:
    """Float32["rows steps V"]: the keyed noise of each token, as arrays/random.py defines it."""
    rows, steps, vocabulary = shape
    each, seed = call.get("num_return_sequences", 1), call["seed"]
    seeds = np.repeat([seed] * len(mask) if isinstance(seed, int) else seed, each)
    words = np.array([split_seed(int(one)) for one in seeds], np.int32)
    stream = (np.arange(rows) if isinstance(seed, int) else np.arange(rows) % each).astype(np.int32)
    length = np.repeat(mask.sum(1), each).astype(np.int32)
    tokens = np.arange(vocabulary, dtype=np.int32)[None]
    found = [gumbel(host, (words[:, 0], words[:, 1]), stream, length + step, tokens) for step in range(steps)]
    return np.stack(found, 1)
