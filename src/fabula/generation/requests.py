"""From a call's prompts and settings to what the engine runs: one request a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np

from fabula.decoding.recipe import Recipe
from fabula.decoding.strategy import Drafter
from fabula.engine.request import Request
from fabula.errors import ArgumentError
from fabula.generation.caches import is_kept
from fabula.generation.callers_own import CallersOwn
from fabula.generation.chain import Asked
from fabula.generation.compilation import compilation_of
from fabula.generation.past.reading import Beginning
from fabula.generation.prompts.source import Source
from fabula.generation.recipe import build_recipe, token_ids
from fabula.generation.results.collector import Collector
from fabula.generation.searches import Searched, judge_of, strategy_of
from fabula.generation.settings.config import GenerationConfig
from fabula.generation.settings.lengths import lengths_for


@dataclass(frozen=True, slots=True)
class Given:
    """What a call was given, checked."""

    source: Source
    configs: Sequence[GenerationConfig]  # a prompt's, every field with the value that holds
    streams: Sequence[tuple[int, int]]  # a prompt's seed, and its first row's stream
    tokenizer: Any
    own: CallersOwn
    negatives: Sequence[np.ndarray | None]  # a prompt's negative prompt, if it is guided
    drafters: Sequence[Drafter | None]  # a prompt's, if its rows are drafted for
    beginnings: Sequence[Beginning] = ()  # what each prompt goes on from
    keeps: bool = False  # whether a cache of the caller's is to be filled


def build_requests(model: Any, given: Given, streamer: Any) -> tuple[list[Collector], list[Request]]:
    """For each prompt what the engine runs, and where its rows are gathered."""
    collectors = _collectors([config.num_return_sequences or 1 for config in given.configs], streamer)
    requests = [_request(model, given, index, collector) for index, collector in enumerate(collectors)]
    return collectors, requests


def _request(model: Any, given: Given, index: int, collector: Collector) -> Request:
    """What the engine runs for one prompt."""
    source, config = given.source, given.configs[index]
    prompt, (seed, stream) = source.prompts.rows[index], given.streams[index]
    beginning = given.beginnings[index] if given.beginnings else Beginning(prompt[:0], None)
    whole, past = np.concatenate([beginning.before, prompt]), beginning.past
    recipe = _recipe(model, given, index, len(beginning.before))
    check_continues(recipe, beginning)
    if given.keeps:
        recipe = replace(recipe, record=replace(recipe.record, past=is_kept(config)))
    return Request(
        whole,
        recipe,
        collector,
        seed,
        stream,
        rows=config.num_return_sequences or 1,
        negative=given.negatives[index],
        memory=None if source.encoded is None else source.encoded.memories[index],
        salt=b"" if is_kept(config) and (past is None or not past.row.foreign) else None,
        vectors=_vectors(source, index, beginning),
        blind=len(beginning.before) if source.prompts.shown else len(whole),
        past=past,
        chunk=config.prefill_chunk_size,
    )


def _recipe(model: Any, given: Given, index: int, before: int) -> Recipe:
    """How one prompt's rows are decoded; `before`: tokens ahead of it that nobody sees."""
    source, config, own = given.source, given.configs[index], given.own
    prompt, drafter, eos = source.prompts.rows[index], given.drafters[index], token_ids(config.eos_token_id)
    limits = lengths_for(config, source.prompts.width(index), model.context_length, before + len(prompt))
    most = _most(model, given, index, before, limits.most)
    shown = prompt if source.prompts.shown else prompt[:0]
    asked = Asked(
        config=config,
        prompt=shown,
        max_length=len(shown) + most,
        min_new_tokens=limits.least,
        eos=eos,
        allowed=own.allowed_for(index),
        own=own.processors,
        text=source.text(index)[: len(shown) if source.texts is None else None],
        healing=source.healing[index] if source.healing else (),
    )
    searched = Searched(config, most, len(eos), model.layer_count, model.is_tied)
    return build_recipe(
        asked,
        max_length=before + len(prompt) + most,
        strategy=strategy_of(searched) if drafter is None else judge_of(config),
        drafter=drafter,
        compiled=compilation_of(model, config),
        tokenizer=given.tokenizer,
        ends=own.ends,
        ended_by=own.kinds,
    )


def _most(model: Any, given: Given, index: int, before: int, most: int) -> int:
    """The most new tokens: a MaxLengthCriteria of the caller's goes before `most`; the context before both."""
    source, longest = given.source, given.own.longest
    prompt, negative = source.prompts.rows[index], given.negatives[index]
    if longest is not None:
        room = model.context_length - before - len(prompt)
        most = min(max(1, longest - source.prompts.width(index) - before), room)
    most += len(source.healing[index]) if source.healing else 0
    return most if negative is None else min(most, model.context_length - len(negative))


def check_continues(recipe: Recipe, beginning: Beginning) -> None:
    """Raises ArgumentError where the whole row has to be computed for what is asked, and cannot be, or not be shown."""
    past, record = beginning.past, recipe.record
    unknown = past is not None and not past.row.is_known and recipe.wants_whole_prompt
    if unknown or (len(beginning.before) and (record.hidden_states or record.attentions or record.prompt)):
        raise ArgumentError(
            "`past_key_values` must come with all ids, not only the new ones, for what is asked of the whole prompt "
            "(its states, attentions or log-probabilities, or contrastive search). Pass them."
        )


def _vectors(source: Source, index: int, beginning: Beginning) -> Any:
    """What takes the place of the row's first ids."""
    if beginning.past is not None:
        return beginning.past.row.vectors
    return None if source.vectors is None else source.vectors[index]


def _collectors(rows: Sequence[int], streamer: Any) -> list[Collector]:
    """One a prompt; with a streamer of several rows, these are counted through the call."""
    if sum(rows) == 1:
        return [Collector(1, streamer)]
    first = accumulate(rows, initial=0)
    return [Collector(count, streamer, start) for count, start in zip(rows, first, strict=False)]
