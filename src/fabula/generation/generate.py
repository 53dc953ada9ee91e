"""generate(): prompts and settings become requests, the engine runs them, and the rows are laid out as they came."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula import arrays
from fabula.cache.kinds import CacheKind
from fabula.engine.request import Request
from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.caches import kinds_of, one_kind, run_requests
from fabula.generation.callers_own import CallersOwn
from fabula.generation.drafts import Assistance, chosen_fields, drafters_of
from fabula.generation.past.keeping import keep_rows
from fabula.generation.past.made_caches import Cache, held_by
from fabula.generation.past.reading import OpenPast, continue_rows, open_past
from fabula.generation.prompts.frameworks import check_tensors
from fabula.generation.prompts.inputs import ModelInputs
from fabula.generation.prompts.negatives import read_negatives
from fabula.generation.prompts.rows import Prompts
from fabula.generation.prompts.source import Source, healed, read_source
from fabula.generation.recipe import filling
from fabula.generation.requests import Given, build_requests
from fabula.generation.results.collector import Collector
from fabula.generation.results.layout import lay_out
from fabula.generation.results.step_streamer import StepStreamer
from fabula.generation.scoring import score_found
from fabula.generation.settings.config import GenerationConfig
from fabula.generation.settings.configs import configs_for, given_configs, streams_for

_NO_CODE = "Fabula runs no code from a model's files"
_REFUSED = {"custom_generate": _NO_CODE, "trust_remote_code": _NO_CODE, "synced_gpus": "one process computes the model"}


@dataclass(frozen=True, slots=True)
class Call:
    """One generate() call, checked: what the engine needs and what the layout needs."""

    source: Source
    config: GenerationConfig  # of the first prompt, every field with the value that holds
    requests: list[Request]
    collectors: list[Collector]  # one a prompt
    started: float  # time.monotonic()
    configs: Sequence[GenerationConfig]  # a prompt's
    kinds: Sequence[CacheKind]  # how each prompt's keys and values are stored
    opened: OpenPast | None = None  # what the call goes on from
    streamer: Any = None  # which takes as many rows as there are

    @property
    def prompts(self) -> Prompts:
        """What each row starts from."""
        return self.source.prompts


def generate(model: Any, inputs: Any, generation_config: Any, streamer: Any, call: dict[str, Any]) -> Any:
    """Runs the call and lays its rows out; see `GenerationMixin.generate`."""
    made = call.get("past_key_values")
    try:
        prepared = prepare(model, inputs, generation_config, streamer, call)
    except BaseException as error:
        _tell(streamer, error)
        raise
    run(model, prepared)
    past = _past(model, prepared)
    if isinstance(made, Cache):
        made.held, past = past, made
    return lay_out(prepared.source, prepared.config, prepared.collectors, past)


def prepare(model: Any, inputs: Any, generation_config: Any, streamer: Any, call: dict[str, Any]) -> Call:
    """Checks everything before anything runs. Raises ArgumentError or NotSupportedError, naming the argument."""
    _refuse_unsupported(call)
    tokenizer = call.pop("tokenizer", None)
    assistants = (call.pop("assistant_model", None), call.pop("assistant_tokenizer", None))
    own = CallersOwn.taken_from(call)
    negative = (call.pop("negative_prompt_ids", None), call.pop("negative_prompt_attention_mask", None))
    made = call.pop("past_key_values", None)
    past = held_by(made, call)
    given = ModelInputs.taken_from(inputs, call, model.is_encoder_decoder)
    beside = dict(zip(("negative_prompt_ids", "negative_prompt_attention_mask"), negative, strict=True))
    check_tensors(arrays.known(model.inputs_like) or "numpy", {**given.named, **beside})
    opened, given = open_past(model, past, given)
    configs = configs_for(call, generation_config, _models_config(model), given.prompts)
    config = configs[0]
    streamer = of_rows(streamer, sum(one.num_return_sequences or 1 for one in configs), config)
    source = read_source(model, given, config)
    if tokenizer is None and any(one.stop_strings or one.token_healing for one in configs):
        tokenizer = model.tokenizer
    if any(one.token_healing for one in configs):
        source = healed(source, configs, tokenizer)
    prompts = source.prompts
    chosen = [chosen_fields(call, one) for one in given_configs(generation_config, given.prompts)]
    drafts = [Assistance(one, fields, tokenizer, *assistants) for one, fields in zip(configs, chosen, strict=True)]
    kinds, beginnings = kinds_of(model, configs, past), []
    if opened is not None:
        beginnings = continue_rows(opened, source, model.engine_for(one_kind(kinds)))
    asked = Given(
        source,
        configs,
        streams_for(call, generation_config, configs, prompts.given),
        tokenizer,
        own.seen_as(prompts.given, model.vocabulary_size),
        read_negatives(negative, prompts, configs, model),
        drafters_of(model, drafts),
        beginnings,
        isinstance(made, Cache),
    )
    collectors, requests = build_requests(model, asked, streamer)
    return Call(source, config, requests, collectors, time.monotonic(), configs, kinds, opened, streamer)


def run(model: Any, call: Call) -> None:
    """Runs a prepared call to its end; raises what ended it early, after telling the streamer."""
    streamer = call.streamer
    try:
        _stream_prompts(streamer, call)
        run_requests(model, call.requests, call.configs, call.kinds)
        for collector in call.collectors:
            if collector.error is not None:
                raise collector.error
        if call.config.output_log_probabilities:
            score_found(model, call.requests, call.collectors, call.config.top_log_probabilities or 0)
    except BaseException as error:
        _tell(streamer, error)
        raise
    if streamer is not None:
        streamer.end()


def _past(model: Any, call: Call) -> Any:
    """What a later call may go on from, where it is asked for; prompts in caches of several kinds have none."""
    kinds = set(call.kinds)
    if not call.requests[0].recipe.record.past or len(kinds) > 1:
        return None
    (kind,) = kinds
    return keep_rows(model, model.engine_for(kind), kind, call.source, call.opened, call.collectors)


def _tell(streamer: Any, error: BaseException) -> None:
    """Ends a streamer that will get no more, so that whoever reads it does not wait for ever."""
    with suppress(Exception):  # what the caller has to see is the error that came first
        if hasattr(streamer, "fail"):
            streamer.fail(error)
        elif hasattr(streamer, "end"):
            streamer.end()


def _stream_prompts(streamer: Any, call: Call) -> None:
    """What a streamer gets first: a single prompt as it was given, each row's own, or all rows' as a rectangle."""
    if streamer is None or not call.prompts.shown:
        return
    counts = [len(collector.steps) for collector in call.collectors]
    if sum(counts) == 1 or isinstance(streamer, StepStreamer):
        ids, _ = call.prompts.rectangle(filling(call.config))
        streamer.put(np.repeat(ids, counts, 0))
        return
    row = 0
    for prompt, collector in zip(call.prompts.rows, call.collectors, strict=True):
        for _ in collector.steps:
            streamer.put(prompt.tolist(), row=row)
            row += 1


def _models_config(model: Any) -> GenerationConfig:
    """The model's own; it says whether there is an encoder, on which some settings depend."""
    config = model.generation_config
    if not isinstance(config, GenerationConfig):
        raise ArgumentError(
            f"`model.generation_config` must be a fabula.GenerationConfig, got {type(config).__name__}. "
            "Make one: GenerationConfig(max_new_tokens=20)."
        )
    if model.is_encoder_decoder:
        config = copy(config)
        config.is_encoder_decoder = True
    return config


def _refuse_unsupported(call: dict[str, Any]) -> None:
    for name, reason in _REFUSED.items():
        if call.pop(name, None) not in (None, False):
            raise NotSupportedError(f"`{name}` is not supported: {reason}. Leave it out.")


def of_rows(streamer: Any, rows: int, config: GenerationConfig) -> Any:
    """What takes so many rows for the streamer. Raises ArgumentError for one without put() or end()."""
    if streamer is None:
        return None
    for method in ("put", "end"):
        if not callable(getattr(streamer, method, None)):
            raise ArgumentError(
                f"`streamer` must have put() and end(), got {type(streamer).__name__} without {method}()."
            )
    if rows == 1 or getattr(streamer, "takes_rows", False):
        return streamer
    return StepStreamer(streamer, rows, filling(config))
