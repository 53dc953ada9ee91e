"""From a resolved GenerationConfig to what the engine does with each row."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from fabula.decoding.recipe import Compilation, Ends, Limits, Recipe, Record
from fabula.decoding.sample import SAMPLE
from fabula.decoding.strategy import Drafter, Search, Strategy
from fabula.errors import ArgumentError
from fabula.generation.chain import Asked, build_chain
from fabula.generation.results.pieces import pieces_of
from fabula.generation.settings.config import GenerationConfig


def token_ids(value: int | Sequence[int] | None) -> tuple[int, ...]:
    """One id, several or none, as a tuple."""
    if value is None:
        return ()
    return tuple(int(one) for one in value) if isinstance(value, Sequence) else (int(value),)


def filling(config: GenerationConfig) -> int:
    """What fills rows up: the pad token, the first end token, or 0."""
    ends = token_ids(config.eos_token_id)
    return config.pad_token_id if config.pad_token_id is not None else (ends[0] if ends else 0)


def build_recipe(
    asked: Asked,
    *,
    max_length: int,
    strategy: Strategy | Search = SAMPLE,
    drafter: Drafter | None = None,
    compiled: Compilation | None = None,
    tokenizer: Any = None,
    ends: Sequence[Ends] = (),
    ended_by: Collection[str] = (),
) -> Recipe:
    """The recipe of one prompt's rows. `max_length` counts what processors do not see, too.

    `ends` are the caller's criteria, and `ended_by` their class names: they hold in the place of the settings' own.
    """
    config = asked.config
    sampled = bool(config.do_sample) and config.temperature != 0
    return Recipe(
        processors=build_chain(asked, sampled),
        limits=Limits(
            max_length=max_length,
            eos=frozenset(() if "EosTokenCriteria" in ended_by else asked.eos),
            stop_strings=() if "StopStringCriteria" in ended_by else _stop_strings(config.stop_strings),
            pieces=None if tokenizer is None else partial(pieces_of, tokenizer),
            max_time=None if "MaxTimeCriteria" in ended_by else config.max_time,
            ends=tuple(ends),
        ),
        sampled=sampled,
        record=_record(config),
        strategy=strategy,
        drafter=drafter,
        compiled=compiled,
    )


def _record(config: GenerationConfig) -> Record:
    if not config.return_dict_in_generate:
        return Record()
    return Record(
        log_probabilities=(config.top_log_probabilities or 0) if _wants_likelihoods(config) else None,
        prompt=bool(config.output_prompt_log_probabilities),
        scores=bool(config.output_scores),
        logits=bool(config.output_logits),
        hidden_states=bool(config.output_hidden_states),
        attentions=bool(config.output_attentions),
        past=config.use_cache is not False,
    )


def _wants_likelihoods(config: GenerationConfig) -> bool:
    return bool(config.output_log_probabilities or config.output_prompt_log_probabilities)


def _stop_strings(value: str | Sequence[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    strings = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(one, str) and one for one in strings):
        raise ArgumentError(f"`stop_strings` must be a text or a list of texts, none of them empty, got {value!r}.")
    return strings
