"""From a resolved GenerationConfig to what the engine does with each row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from fabula.decoding.recipe import Limits, Recipe, Record
from fabula.errors import ArgumentError
from fabula.generation.config import GenerationConfig
from fabula.generation.pieces import pieces_of
from fabula.processors.penalties import RepetitionPenaltyLogitsProcessor
from fabula.processors.processor import LogitsProcessorList
from fabula.processors.temperature import TemperatureLogitsWarper
from fabula.processors.tokens import MinNewTokensLengthLogitsProcessor
from fabula.processors.truncation import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper


def token_ids(value: int | Sequence[int] | None) -> tuple[int, ...]:
    """One id, several or none, as a tuple."""
    if value is None:
        return ()
    return tuple(int(one) for one in value) if isinstance(value, Sequence) else (int(value),)


def build_recipe(
    config: GenerationConfig,
    *,
    prompt_length: int,
    new_tokens: int,
    min_new_tokens: int,
    tokenizer: Any = None,
) -> Recipe:
    """The recipe of a row whose prompt has `prompt_length` tokens and which may grow by `new_tokens`."""
    sampled = bool(config.do_sample) and config.temperature != 0
    eos = token_ids(config.eos_token_id)
    return Recipe(
        processors=_processors(config, prompt_length, min_new_tokens, eos, sampled),
        limits=Limits(
            max_length=prompt_length + new_tokens,
            eos=frozenset(eos),
            stop_strings=_stop_strings(config.stop_strings),
            pieces=None if tokenizer is None else partial(pieces_of, tokenizer),
            max_time=config.max_time,
        ),
        sampled=sampled,
        record=_record(config),
    )


def _record(config: GenerationConfig) -> Record:
    if not config.return_dict_in_generate:
        return Record()
    return Record(scores=bool(config.output_scores), logits=bool(config.output_logits))


def _processors(
    config: GenerationConfig, prompt_length: int, min_new_tokens: int, eos: tuple[int, ...], sampled: bool
) -> LogitsProcessorList:
    """The processors that the config asks for, in transformers' order."""
    chain = LogitsProcessorList()
    if config.repetition_penalty not in (None, 1):
        chain.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if min_new_tokens > 0 and eos:
        chain.append(MinNewTokensLengthLogitsProcessor(prompt_length, min_new_tokens, list(eos)))
    if not sampled:
        return chain
    if config.temperature not in (None, 1):
        chain.append(TemperatureLogitsWarper(config.temperature))
    if config.top_k:
        chain.append(TopKLogitsWarper(config.top_k))
    if config.top_p is not None and config.top_p < 1:
        chain.append(TopPLogitsWarper(config.top_p))
    if config.min_p is not None:
        chain.append(MinPLogitsWarper(config.min_p))
    return chain


def _stop_strings(value: str | Sequence[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    strings = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(one, str) and one for one in strings):
        raise ArgumentError(f"`stop_strings` must be a text or a list of texts, none of them empty, got {value!r}.")
    return strings
