"""generate() with a GenerationConfig for each prompt: prepared one by one, run and laid out as one call."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from fabula.errors import ArgumentError
from fabula.generation.collector import Collector
from fabula.generation.config import GenerationConfig
from fabula.generation.configs import configs_for, given_configs, streams_for
from fabula.generation.generate import Call, prepare, run
from fabula.generation.layout import lay_out
from fabula.generation.prompts import Prompts
from fabula.generation.rules import MODEL_INPUTS

__all__ = ["generate_each"]

_OF_CALL = (  # arguments that are no settings and the same for every prompt
    *("logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "assistant_model", "synced_gpus"),
    *("custom_generate", "negative_prompt_ids", "negative_prompt_attention_mask"),
)
_OF_PROMPTS = (  # arguments with an entry a prompt
    *("attention_mask", "position_ids", "token_type_ids", "negative_prompt_ids", "negative_prompt_attention_mask"),
)


def generate_each(
    model: Any, inputs: Any, given: Sequence[GenerationConfig | None], streamer: Any, call: dict[str, Any]
) -> Any:
    """What generate() returns for these prompts, prompt i with the settings of `given[i]`.

    Raises what generate() raises, and ArgumentError where configs differ in what shapes the whole output.
    """
    try:
        prepared = _prepare(model, inputs, given, streamer, dict(call))
    except BaseException as error:
        with suppress(Exception):  # what the caller has to see is the error that came first
            streamer.fail(error) if hasattr(streamer, "fail") else streamer.end()
        raise
    run(model, prepared, streamer)
    return lay_out(prepared.prompts, prepared.config, prepared.collectors)


def _prepare(model: Any, inputs: Any, given: Sequence[Any], streamer: Any, call: dict[str, Any]) -> Call:
    """One Call of all prompts."""
    prompts = _prompts(inputs, call)
    configs = configs_for(call, given, model.generation_config, len(prompts), accepts=(*MODEL_INPUTS, *_OF_CALL))
    _check_rows(configs, streamer)
    given = given_configs(given, len(prompts))
    parts = [
        prepare(model, _entry(prompts, index), given[index], None, _of_prompt(call, index, configs[index]))
        for index in range(len(prompts))
    ]
    listed = isinstance(prompts, (list, tuple))
    streams = streams_for(call, given, configs, None if listed else prompts)
    collectors = _collectors([len(part.collectors[0].steps) for part in parts], streamer)
    requests = [
        replace(part.requests[0], sink=collector, seed=seed, stream=stream)
        for part, collector, (seed, stream) in zip(parts, collectors, streams, strict=True)
    ]
    merged = Prompts(
        [part.prompts.rows[0] for part in parts],
        given=None if listed else prompts,
        mask=None if listed else np.concatenate([part.prompts.mask for part in parts if part.prompts.mask is not None]),
    )
    return Call(merged, configs[0], requests, collectors, time.monotonic())


def _prompts(inputs: Any, call: dict[str, Any]) -> Any:
    """The prompts, by whichever name they came; a tokenizer's whole answer may be `inputs`."""
    if isinstance(inputs, Mapping):
        call.update(inputs)
        inputs = None
    named = call.pop("input_ids", None)
    if (inputs is None) == (named is None):
        raise ArgumentError("`inputs` must be given once, where each prompt has a config: as `inputs` or `input_ids`.")
    return named if inputs is None else inputs


def _check_rows(configs: Sequence[GenerationConfig], streamer: Any) -> None:
    """Raises ArgumentError for prompts whose rows cannot be streamed, or laid out in one object."""
    counts = {config.num_return_sequences or 1 for config in configs}
    beams = {config.num_beams or 1 for config in configs}
    shaped = any(config.return_dict_in_generate for config in configs) and beams != {1}
    for name, values in (("num_return_sequences", counts), ("num_beams", beams)):
        if len(values) > 1 and (shaped or (streamer is not None and name == "num_return_sequences")):
            reason = "an output object of beams" if shaped else "a streamer"
            raise ArgumentError(f"`{name}` must be the same for all prompts with {reason}, got {sorted(values)}.")
    if streamer is not None and len(configs) * max(counts) > 1 and not getattr(streamer, "takes_rows", False):
        raise ArgumentError(
            f"`streamer` must take rows to stream {len(configs) * max(counts)} of them, and {type(streamer).__name__} "
            "takes one. Use a TextStreamer of fabula's, or stream one row at a time."
        )


def _of_prompt(call: Mapping[str, Any], index: int, config: GenerationConfig) -> dict[str, Any]:
    """The call's arguments for one of its prompts; what it draws with is decided for all of them together."""
    arguments = {name: _entry(value, index) if name in _OF_PROMPTS else value for name, value in call.items()}
    allowed = call.get("prefix_allowed_tokens_fn")
    if callable(allowed):
        arguments["prefix_allowed_tokens_fn"] = lambda _, ids: allowed(index, ids)
    return {**arguments, "seed": 0} if config.do_sample else arguments


def _entry(values: Any, index: int) -> Any:
    """The one entry of a prompt, still as rows; a single one is everybody's."""
    return values if values is None or len(values) == 1 else values[index : index + 1]


def _collectors(counts: Sequence[int], streamer: Any) -> list[Collector]:
    if sum(counts) == 1:
        return [Collector(1, streamer)]
    return [Collector(count, streamer, sum(counts[:index])) for index, count in enumerate(counts)]
