"""generate(): prompts and settings become requests, the engine runs them, and the rows are laid out as they came."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula.engine.request import Request
from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.callers_own import CallersOwn
from fabula.generation.collector import Collector
from fabula.generation.config import GenerationConfig
from fabula.generation.drafts import Assistance, chosen_fields, drafter_of
from fabula.generation.layout import lay_out
from fabula.generation.negatives import read_negatives
from fabula.generation.positions import check_positions
from fabula.generation.prompts import Prompts, check_rows, read_prompts
from fabula.generation.recipe import token_ids
from fabula.generation.requests import Given, build_requests
from fabula.generation.rules import check_supported, resolve
from fabula.generation.scoring import score_found

_NO_CODE = "Fabula runs no code from a model's files"
_REFUSED = {"custom_generate": _NO_CODE, "trust_remote_code": _NO_CODE, "synced_gpus": "one process computes the model"}
_UNSUPPORTED = (  # arguments of transformers' generate() that are still to come
    "inputs_embeds",
    "past_key_values",
)


@dataclass(frozen=True, slots=True)
class Call:
    """One generate() call, checked: what the engine needs and what the layout needs."""

    prompts: Prompts
    config: GenerationConfig  # every field with the value that holds
    requests: list[Request]
    collectors: list[Collector]  # one a prompt
    started: float  # time.monotonic()


def generate(
    model: Any, inputs: Any, generation_config: GenerationConfig | None, streamer: Any, call: dict[str, Any]
) -> Any:
    """Runs the call and lays its rows out; see `GenerationMixin.generate`."""
    try:
        prepared = prepare(model, inputs, generation_config, streamer, call)
    except BaseException as error:
        _tell(streamer, error)
        raise
    run(model, prepared, streamer)
    return lay_out(prepared.prompts, prepared.config, prepared.collectors)


def prepare(
    model: Any, inputs: Any, generation_config: GenerationConfig | None, streamer: Any, call: dict[str, Any]
) -> Call:
    """Checks everything before anything runs. Raises ArgumentError or NotSupportedError, naming the argument."""
    _refuse_unsupported(call)
    tokenizer = call.pop("tokenizer", None)
    assistants = (call.pop("assistant_model", None), call.pop("assistant_tokenizer", None))
    own = CallersOwn.taken_from(call)
    negative = (call.pop("negative_prompt_ids", None), call.pop("negative_prompt_attention_mask", None))
    inputs, attention_mask, position_ids = _model_inputs(inputs, call)
    _check_config("model.generation_config", model.generation_config)
    if generation_config is not None:
        _check_config("generation_config", generation_config)
    config, _ = resolve(call, generation_config, model.generation_config, accepts=())
    check_supported(config)
    eos = frozenset(token_ids(config.eos_token_id))
    prompts = read_prompts(
        inputs, attention_mask, pad=config.pad_token_id, eos=eos, bos=config.bos_token_id, like=model.inputs_like
    )
    check_positions(position_ids, prompts)
    check_rows(prompts.rows, vocabulary=model.vocabulary_size, context=model.context_length)
    _check_streamer(streamer, prompts, config)
    if config.stop_strings and tokenizer is None:
        tokenizer = model.tokenizer
    drafter = drafter_of(model, Assistance(config, chosen_fields(call, generation_config), tokenizer, *assistants))
    own = own.seen_as(prompts.given, model.vocabulary_size)
    given = Given(prompts, config, tokenizer, own, read_negatives(negative, prompts, config, model), drafter)
    collectors, requests = build_requests(model, given, streamer)
    return Call(prompts, config, requests, collectors, time.monotonic())


def run(model: Any, call: Call, streamer: Any = None) -> None:
    """Runs a prepared call to its end; raises what ended it early, after telling the streamer."""
    try:
        _stream_prompts(streamer, call)
        model.engine.run(call.requests)
        for collector in call.collectors:
            if collector.error is not None:
                raise collector.error
        if call.config.output_log_probabilities:
            score_found(model, call.prompts.rows, call.collectors, call.config.top_log_probabilities or 0)
    except BaseException as error:
        _tell(streamer, error)
        raise
    if streamer is not None:
        streamer.end()


def _tell(streamer: Any, error: BaseException) -> None:
    """Ends a streamer that will get no more, so that whoever reads it does not wait for ever."""
    with suppress(Exception):  # what the caller has to see is the error that came first
        if hasattr(streamer, "fail"):
            streamer.fail(error)
        elif hasattr(streamer, "end"):
            streamer.end()


def _stream_prompts(streamer: Any, call: Call) -> None:
    """What a streamer gets first: a single prompt as it was given, or each row's own."""
    if streamer is None:
        return
    rows = call.config.num_return_sequences or 1
    if rows * len(call.prompts.rows) == 1:
        streamer.put(call.prompts.as_host())
        return
    for row in range(rows * len(call.prompts.rows)):
        streamer.put(call.prompts.rows[row // rows].tolist(), row=row)


def _check_config(name: str, config: Any) -> None:
    if not isinstance(config, GenerationConfig):
        raise ArgumentError(
            f"`{name}` must be a fabula.GenerationConfig, got {type(config).__name__}. "
            "Make one: GenerationConfig(max_new_tokens=20)."
        )


def _model_inputs(inputs: Any, call: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Prompts, mask and positions, by whichever name they came; a tokenizer's whole answer may be `inputs`."""
    if isinstance(inputs, Mapping):
        twice = [name for name in inputs if call.get(name) is not None]
        if twice:
            raise ArgumentError(f"`{twice[0]}` must be given once, got it in `inputs` and by name. Leave one out.")
        call.update(inputs)
        inputs = None
    named = call.pop("input_ids", None)
    if inputs is not None and named is not None:
        raise ArgumentError("give the prompts once, as `inputs` or as `input_ids`, not both.")
    _check_segments(call.pop("token_type_ids", None))
    prompts = named if inputs is None else inputs
    return prompts, call.pop("attention_mask", None), call.pop("position_ids", None)


def _check_segments(token_type_ids: Any) -> None:
    """Tokenizers pass zeros along, which mean nothing; other segment ids would change the answer."""
    if token_type_ids is not None and np.asarray(token_type_ids).any():
        raise NotSupportedError("`token_type_ids` must be 0 everywhere, got other segments. Leave them out.")


def _refuse_unsupported(call: dict[str, Any]) -> None:
    for name in _UNSUPPORTED:
        if call.pop(name, None) is not None:
            raise NotSupportedError(f"`{name}` is not supported yet.")
    for name, reason in _REFUSED.items():
        if call.pop(name, None) not in (None, False):
            raise NotSupportedError(f"`{name}` is not supported: {reason}. Leave it out.")


def _check_streamer(streamer: Any, prompts: Prompts, config: GenerationConfig) -> None:
    if streamer is None:
        return
    rows = len(prompts.rows) * (config.num_return_sequences or 1)
    if rows > 1 and not getattr(streamer, "takes_rows", False):
        raise ArgumentError(
            f"`streamer` must take rows to stream {rows} of them, and {type(streamer).__name__} takes one. Give it "
            "`takes_rows = True`, put(ids, row=) and end_row(row), as TextStreamer has, or stream one row at a time."
        )
    for method in ("put", "end"):
        if not callable(getattr(streamer, method, None)):
            raise ArgumentError(
                f"`streamer` must have put() and end(), got {type(streamer).__name__} without {method}()."
            )
