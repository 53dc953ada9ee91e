"""What the installed transformers makes of a prompt, and how far apart the scores were that decided it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tests.equal.strategies.cases import ended

MOST = 99.0  # the gap where there was no second choice


@dataclass(frozen=True)
class Outcome:
    """The rows that a call gave."""

    rows: list[list[int]]  # new tokens, end tokens included
    gaps: list[float]  # of each step; of a search also the ranking's
    scores: list[float] | None = None  # of a search's sequences


def one_token_a_step(model: Any, prompt: list[int], **settings: Any) -> Outcome:
    """Greedy decoding of any kind: its gaps are those of each step's scores."""
    out = call(model, prompt, **settings)
    row = ended(out.sequences[0, len(prompt) :].tolist(), settings.get("eos_token_id"))
    return Outcome([row], [lead(scores[0]) for scores in out.scores])


def beams(model: Any, prompt: list[int], **settings: Any) -> Outcome:
    """Beam search."""
    gaps: list[float] = []
    keep = model._get_running_beams_for_next_iteration

    def watched(**step: Any) -> Any:
        best, ends = step["topk_log_probs"][0].tolist(), step["next_token_hits_stopping_criteria"][0].tolist()
        gaps.append(border(best, ends, step["num_beams"]))
        return keep(**step)

    model._get_running_beams_for_next_iteration = watched
    try:
        out = call(model, prompt, **settings)
    finally:
        del model._get_running_beams_for_next_iteration
    rows = [ended(row[len(prompt) :], settings.get("eos_token_id")) for row in out.sequences.tolist()]
    scores = out.sequences_scores.tolist()
    return Outcome(rows, [*gaps, *(a - b for a, b in pairwise(scores)), MOST], scores)


def border(best: list[float], ends: list[bool], width: int) -> float:
    """The gap between the last candidate that goes on and the next, and between the last that may end and the next."""
    going = [place for place, end in enumerate(ends) if not end][:width]
    places = {going[-1]} if going else set()
    if any(ends[width - 1 : width + 1]):
        places.add(width - 1)
    return min((best[place] - best[place + 1] for place in places if place + 1 < len(best)), default=MOST)


def call(model: Any, prompt: list[int], **settings: Any) -> Any:
    """model.generate for one row of ids, without end tokens unless settings name one."""
    import torch

    model.generation_config.eos_token_id = None
    return model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        **{"do_sample": False, "pad_token_id": 0, "output_scores": True, "return_dict_in_generate": True, **settings},
    )


def lead(scores: Any) -> float:
    """The best score less the next."""
    best = np.sort(np.asarray(scores, np.float64))[-2:]
    return min(float(best[1] - best[0]), MOST)
