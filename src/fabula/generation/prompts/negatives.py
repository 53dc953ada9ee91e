"""Negative prompts: what guidance pushes away from, one for each prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.prompts.rows import Prompts, check_rows, read_prompts
from fabula.generation.recipe import token_ids
from fabula.generation.settings.config import GenerationConfig


def read_negatives(
    given: tuple[Any, Any], prompts: Prompts, configs: Sequence[GenerationConfig], model: Any
) -> list[np.ndarray | None]:
    """For each prompt the ids of its negative prompt, its own last token where none is given; None without guidance.

    `given`: `negative_prompt_ids` Int["R N"] or Int["1 N"], or lists, and their mask. Raises ArgumentError, and
    NotSupportedError for a model with an encoder.
    """
    ids, mask = given
    guided = [config.guidance_scale not in (None, 1) for config in configs]
    if any(guided) and model.is_encoder_decoder:
        raise NotSupportedError(
            "`guidance_scale` is not supported for a model with an encoder: a negative prompt would be a text that the "
            f"encoder reads. Leave it out, got {configs[guided.index(True)].guidance_scale}."
        )
    if ids is None:
        return [row[-1:] if one else None for row, one in zip(prompts.rows, guided, strict=True)]
    config = configs[0]
    if not any(guided):
        raise ArgumentError(
            "`negative_prompt_ids` must come with a `guidance_scale` other than 1, got "
            f"{config.guidance_scale}. Set guidance_scale=1.5, or leave the negative prompt out."
        )
    eos = frozenset(token_ids(config.eos_token_id))
    rows = read_prompts(ids, mask, pad=config.pad_token_id, eos=eos, bos=config.bos_token_id).rows
    if len(rows) not in (1, len(prompts.rows)):
        raise ArgumentError(
            f"`negative_prompt_ids` must hold one negative prompt a prompt, {len(prompts.rows)}, or one for all, "
            f"got {len(rows)}."
        )
    check_rows(rows, vocabulary=model.vocabulary_size, context=model.context_length)
    rows = rows if len(rows) == len(prompts.rows) else rows * len(prompts.rows)
    return [row if one else None for row, one in zip(rows, guided, strict=True)]
