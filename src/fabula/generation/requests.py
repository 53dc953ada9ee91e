"""From a call's prompts and settings to what the engine runs: one request a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula.decoding.sample import SAMPLE
from fabula.decoding.strategy import Drafter
from fabula.engine.request import Request
from fabula.generation.callers_own import CallersOwn
from fabula.generation.chain import Asked
from fabula.generation.collector import Collector
from fabula.generation.config import GenerationConfig
from fabula.generation.lengths import new_token_limits
from fabula.generation.prompts import Prompts
from fabula.generation.recipe import build_recipe, token_ids
from fabula.generation.searches import Searched, strategy_of
from fabula.generation.seeds import seeds_for


@dataclass(frozen=True, slots=True)
class Given:
    """What a call was given, checked."""

    prompts: Prompts
    config: GenerationConfig  # every field with the value that holds
    tokenizer: Any
    own: CallersOwn
    negatives: list[np.ndarray] | None = None  # a negative prompt for each prompt
    drafter: Drafter | None = None


def build_requests(model: Any, given: Given, streamer: Any) -> tuple[list[Collector], list[Request]]:
    """For each prompt what the engine runs, and where its rows are gathered."""
    config, prompts = given.config, given.prompts
    rows, eos = config.num_return_sequences or 1, token_ids(config.eos_token_id)
    collectors = _collectors(rows, len(prompts.rows), streamer)
    streams = max(rows, config.num_beams or 1)
    seeds = seeds_for(config.seed if config.do_sample else 0, len(prompts.rows), streams, prompts.given)
    limits = new_token_limits(config, prompts, model.context_length)
    requests = []
    for index, (prompt, (seed, stream), (most, least)) in enumerate(zip(prompts.rows, seeds, limits, strict=True)):
        own, negative = given.own, None if given.negatives is None else given.negatives[index]
        if negative is not None:
            most = min(most, model.context_length - len(negative))
        asked = Asked(config, prompt, len(prompt) + most, least, eos, own.allowed_for(index), own.processors)
        searched = Searched(config, most, len(eos), model.layer_count, model.is_tied)
        strategy = strategy_of(searched) if given.drafter is None else SAMPLE
        recipe = build_recipe(asked, strategy=strategy, drafter=given.drafter, tokenizer=given.tokenizer, ends=own.ends)
        requests.append(Request(prompt, recipe, collectors[index], seed, stream, rows, negative=negative))
    return collectors, requests


def _collectors(rows: int, prompts: int, streamer: Any) -> list[Collector]:
    if rows * prompts == 1:
        return [Collector(1, streamer)]
    return [Collector(rows, streamer, index * rows) for index in range(prompts)]
