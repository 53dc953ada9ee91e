"""The rows of a finished call as its caller passed them: tensors in, tensors out; lists in, lists out."""

from __future__ import annotations

from typing import Any

import numpy as np

from fabula import arrays
from fabula.generation.collector import Collector
from fabula.generation.config import GenerationConfig
from fabula.generation.outputs import GenerateDecoderOnlyOutput
from fabula.generation.prompts import Prompts
from fabula.generation.recipe import token_ids


def lay_out(prompts: Prompts, config: GenerationConfig, collectors: list[Collector]) -> Any:
    """Prompt and new tokens of every row; as an output object if `return_dict_in_generate`."""
    sequences = _lists(prompts, collectors) if prompts.given is None else _rectangle(prompts, config, collectors)
    if not config.return_dict_in_generate:
        return sequences
    like = prompts.given
    return GenerateDecoderOnlyOutput(
        sequences=sequences,
        scores=_stacked(collectors, "scores", like) if config.output_scores else None,
        logits=_stacked(collectors, "logits", like) if config.output_logits else None,
        finish_reasons=[reason for collector in collectors for reason in collector.reasons],
    )


def _lists(prompts: Prompts, collectors: list[Collector]) -> list[list[int]]:
    return [
        prompt.tolist() + [step.token for step in steps]
        for prompt, collector in zip(prompts.rows, collectors, strict=True)
        for steps in collector.steps
    ]


def _rectangle(prompts: Prompts, config: GenerationConfig, collectors: list[Collector]) -> Any:
    """[R * n, L + N]: each prompt as it was given, padding included, its new tokens, and padding on the right."""
    given = prompts.as_host()
    eos = token_ids(config.eos_token_id)
    pad = config.pad_token_id if config.pad_token_id is not None else (eos[0] if eos else 0)
    longest = max(len(steps) for collector in collectors for steps in collector.steps)
    rows = []
    for prompt, collector in zip(given, collectors, strict=True):
        for index in range(len(collector.steps)):
            new = collector.tokens(index)
            rows.append(np.concatenate([prompt, new, np.full(longest - len(new), pad)]))
    return arrays.of(prompts.given).asarray(np.array(rows, np.int64), "int64", like=prompts.given)


def _stacked(collectors: list[Collector], kind: str, like: Any) -> tuple[Any, ...]:
    """For each step the recorded scores of all rows, [R * n, V]; a row that has ended repeats its last."""
    rows = [steps for collector in collectors for steps in collector.steps]
    longest = max(len(steps) for steps in rows)
    like = np.zeros(0) if like is None else like
    xp = arrays.of(like)
    return tuple(
        xp.asarray(
            np.stack([getattr(steps[min(step, len(steps) - 1)].kept, kind) for steps in rows]), "float32", like=like
        )
        for step in range(longest)
    )
