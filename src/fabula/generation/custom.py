"""custom_generate: a caller's own loop in the place of generate()'s, given what transformers would give it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any

import numpy as np

from fabula import arrays
from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.callers_own import CallersOwn
from fabula.generation.generate import Call, prepare
from fabula.generation.past.made_caches import DynamicCache
from fabula.generation.recipe import filling, token_ids
from fabula.generation.settings.config import GenerationConfig
from fabula.generation.settings.rules import MODEL_INPUTS
from fabula.processors.processor import LogitsProcessor, LogitsProcessorList
from fabula.stopping import (
    EosTokenCriteria,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)

__all__ = ["generate_custom", "next_inputs", "with_outputs"]

_ALWAYS = ("model", "self", "input_ids", "logits_processor", "stopping_criteria", "generation_config", "model_kwargs")
_HELPERS = ("tokenizer", "assistant_model", "assistant_tokenizer")  # handed on to a loop that names them


def generate_custom(
    model: Any, loop: Callable[..., Any], inputs: Any, generation_config: Any, streamer: Any, call: dict[str, Any]
) -> Any:
    """What `loop` returns when it is called as transformers calls it, without gradients:

    loop(model, input_ids, logits_processor=, stopping_criteria=, generation_config=, attention_mask=, use_cache=,
         past_key_values=, ...)

    `input_ids` Int["R L"] hold each prompt as many times as there are beams or sequences, padded on the left if they
    came as lists; `attention_mask` is None where nothing is padding; `past_key_values` is a new DynamicCache, for a
    decoder of ours with a cache in use; the two lists hold what the settings ask for, and
    the caller's own; `generation_config` has every field settled, lengths in all. What else the call holds goes to the
    parameter of its name. Raises ArgumentError for a streamer that the loop does not take, what generate() raises, and
    what the loop does, which the streamer is told.
    """
    try:
        return _run(model, loop, inputs, generation_config, streamer, call)
    except BaseException as error:
        if hasattr(streamer, "fail"):
            streamer.fail(error)
        raise


def _run(
    model: Any, loop: Callable[..., Any], inputs: Any, generation_config: Any, streamer: Any, call: dict[str, Any]
) -> Any:
    call = {name: value for name, value in call.items() if name != "custom_generate" and value is not None}
    named = set(inspect.signature(loop).parameters) - set(_ALWAYS)
    given = {name: call[name] for name in _HELPERS if name in call and name in named}
    given |= {name: call.pop(name) for name in list(call) if name in named and name not in (*_HELPERS, *MODEL_INPUTS)}
    if streamer is not None:
        if "streamer" not in named:
            raise ArgumentError("`streamer` must be a parameter of `custom_generate`: nothing else would write to it.")
        given["streamer"] = streamer
    criteria, tokenizer = CallersOwn.taken_from(dict(call)).criteria, call.get("tokenizer")
    if call.get("past_key_values") is not None:
        raise NotSupportedError("`past_key_values` is not handed to `custom_generate`. Give it to the function itself.")
    prepared = prepare(model, inputs, generation_config, None, call)
    like = _like(model, prepared)
    ids, mask = _rectangle(prepared)
    config = _settled(prepared, ids.shape[1], like)
    xp = arrays.of(like)
    given["attention_mask"] = None if mask.all() else xp.asarray(mask.astype(np.int64), "int64", like=like)
    given["use_cache"] = config.use_cache is not False
    if given["use_cache"] and hasattr(model, "family") and not model.is_encoder_decoder:
        given["past_key_values"] = DynamicCache()
    with _without_gradients(like):
        return loop(
            model,
            xp.asarray(ids, "int64", like=like),
            logits_processor=_processors(prepared, mask),
            stopping_criteria=_criteria(prepared, config, criteria, model if tokenizer is None else None, tokenizer),
            generation_config=config,
            **_taken(loop, given),
        )


def _taken(loop: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that the loop takes: all, if it takes any."""
    parameters = inspect.signature(loop).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return dict(given)
    return {name: value for name, value in given.items() if name in parameters}


def _like(model: Any, prepared: Call) -> Any:
    """An array of the framework that the loop will see: that of the inputs, or the model's own."""
    given = prepared.prompts.given
    if given is not None:
        return given
    return np.zeros(0, np.int64) if model.inputs_like is None else model.inputs_like


def _copies(config: GenerationConfig) -> int:
    """Rows a prompt."""
    return max(config.num_beams or 1, config.num_return_sequences or 1)


def _rectangle(prepared: Call) -> tuple[np.ndarray, np.ndarray]:
    """Int["R L"] and Bool["R L"]: every row's ids and which of them count; lists are padded on the left."""
    ids, mask = prepared.prompts.rectangle(filling(prepared.config))
    rows = _copies(prepared.config)
    return np.repeat(ids, rows, 0), np.repeat(mask, rows, 0)


def _settled(prepared: Call, width: int, like: Any) -> GenerationConfig:
    """The call's config with total lengths for rows of `width`, and the special tokens as arrays as well."""
    config = deepcopy(prepared.config)
    rooms = [one.recipe.limits.max_length - len(one.prompt) for one in prepared.requests]
    config.max_length = width + min(rooms)
    config.min_length = max(config.min_length or 0, width + config.min_new_tokens if config.min_new_tokens else 0)
    eos = token_ids(config.eos_token_id)
    if config.pad_token_id is None and eos:
        config.pad_token_id = eos[0]
    xp = arrays.of(like)
    for name, ids in (("eos", list(eos)), ("pad", config.pad_token_id), ("bos", config.bos_token_id)):
        array = None if ids is None or ids == [] else xp.asarray(np.array(ids, np.int64), "int64", like=like)
        setattr(config, f"_{name}_token_tensor", array)
    return config


def _processors(prepared: Call, mask: np.ndarray) -> LogitsProcessorList:
    """One prompt's processors as they are; those of several, each to its own rows."""
    chains = [request.recipe.processors for request in prepared.requests]
    if len(chains) == 1 and mask.all():
        return chains[0]
    rows = _copies(prepared.config)
    return LogitsProcessorList([RowsApart([chain for chain in chains for _ in range(rows)], mask)])


def _criteria(
    prepared: Call, config: GenerationConfig, own: Sequence[Any], model: Any, tokenizer: Any
) -> StoppingCriteriaList:
    """What ends rows, in transformers' order; the caller's own come last."""
    limits = prepared.requests[0].recipe.limits
    criteria: list[Any] = [MaxLengthCriteria(config.max_length)]
    if limits.max_time is not None:
        criteria.append(MaxTimeCriteria(limits.max_time))
    if limits.stop_strings:
        criteria.append(StopStringCriteria(model.tokenizer if tokenizer is None else tokenizer, limits.stop_strings))
    if limits.eos:
        criteria.append(EosTokenCriteria(list(token_ids(config.eos_token_id))))
    return StoppingCriteriaList([*criteria, *own])


def _without_gradients(like: Any) -> AbstractContextManager[Any]:
    """Nothing is recorded for a backward pass, where `like` is of a framework that records."""
    torch = sys.modules.get("torch")
    return torch.no_grad() if torch is not None and isinstance(like, torch.Tensor) else nullcontext()


class RowsApart(LogitsProcessor):
    """Rows with processors of their own, which see the row without its prompt's padding."""

    def __init__(self, chains: Sequence[LogitsProcessorList], mask: np.ndarray) -> None:
        """`chains`: one a row; `mask`: Bool["R P"], which of the prompt's columns count."""
        self.chains = tuple(chains)
        self.mask = mask

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Float["R V"] for Int["R L"]. Raises ArgumentError for another number of rows."""
        if len(scores) != len(self.chains):
            raise ArgumentError(f"`scores` must have the call's {len(self.chains)} rows, got {len(scores)}.")
        xp, new = arrays.of(input_ids), np.ones(input_ids.shape[1] - self.mask.shape[1], bool)
        parts = []
        for row, chain in enumerate(self.chains):
            kept = np.flatnonzero(np.concatenate([self.mask[row], new])).astype(np.int32)
            columns = xp.asarray(kept[None], "int32", like=input_ids)
            parts.append(chain(xp.take_along_axis(input_ids[row : row + 1], columns), scores[row : row + 1]))
        return arrays.of(scores).concat(parts, 0)


def next_inputs(
    input_ids: Any, past_key_values: Any = None, attention_mask: Any = None, **kwargs: Any
) -> dict[str, Any]:
    """The arguments of the model's next call: the columns that `past_key_values` have not seen, and the rest."""
    seen = 0 if past_key_values is None else past_key_values.get_seq_length()
    inputs = {"input_ids": input_ids[:, seen:], "past_key_values": past_key_values, "attention_mask": attention_mask}
    return {**inputs, **{name: value for name, value in kwargs.items() if value is not None}}


def with_outputs(outputs: Any, model_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """`model_kwargs` after a step: the cache that it returned, and a mask that is one column longer."""
    updated = {**model_kwargs, "past_key_values": outputs.past_key_values}
    mask = model_kwargs.get("attention_mask")
    if mask is not None:
        xp = arrays.of(mask)
        updated["attention_mask"] = xp.concat([mask, xp.ones_like(mask[:, :1])], 1)
    return updated
