"""generate() for models with an encoder: it runs once for each prompt, and the decoder's rows carry what it made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fabula import arrays
from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.generate import prepare, run
from fabula.generation.layout import lay_out
from fabula.generation.prompts import Prompts, read_prompts
from fabula.generation.recipe import token_ids
from fabula.generation.rules import resolve

_OF_ENCODER = {"encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0}


def generate_seq2seq(model: Any, inputs: Any, generation_config: Any, streamer: Any, call: dict[str, Any]) -> Any:
    """Runs the call: `inputs` are the encoder's, `decoder_input_ids` what the decoder starts from."""
    if isinstance(inputs, Mapping):
        inputs, call = None, {**inputs, **call}
    inputs = call.pop("input_ids", None) if inputs is None else inputs
    mask, started = call.pop("attention_mask", None), call.pop("decoder_input_ids", None)
    if inputs is None:
        raise ArgumentError("`inputs` must be the encoder's ids, got None. Pass `input_ids`.")
    config, _ = resolve(_settings(call), generation_config, model.generation_config, accepts=())
    _check(config)
    eos = frozenset(token_ids(config.eos_token_id))
    prompts = read_prompts(inputs, mask, pad=config.pad_token_id, eos=eos, bos=None, like=model.inputs_like)
    memories = [model.encode(row[None])[0] for row in prompts.rows]
    first = _start(config, prompts) if started is None else started
    prepared = prepare(model, first, generation_config, streamer, call)
    requests = [replace(one, memory=memory) for one, memory in zip(prepared.requests, memories, strict=True)]
    prepared = replace(prepared, requests=requests)
    run(model, prepared, streamer)
    return lay_out(prepared.prompts, prepared.config, prepared.collectors)


def _settings(call: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call that are settings, as `resolve` takes them; it may empty what it is given."""
    return {name: value for name, value in call.items() if name in ("decoder_start_token_id", "bos_token_id", *_PADS)}


_PADS = ("pad_token_id", "eos_token_id", *_OF_ENCODER)


def _check(config: Any) -> None:
    for name, off in _OF_ENCODER.items():
        if getattr(config, name) not in (None, off):
            raise NotSupportedError(f"`{name}` is not supported for a wrapped model yet. Leave it out.")


def _start(config: Any, prompts: Prompts) -> Any:
    """The decoder's start token for each prompt, in the prompts' framework. Raises ArgumentError without one."""
    start = config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
    if start is None:
        raise ArgumentError(
            "`decoder_start_token_id` or `bos_token_id` has to be defined for a model with an encoder. "
            "Set it in the generation config."
        )
    ids = np.broadcast_to(np.reshape(np.asarray(start, np.int64), (-1, 1)), (len(prompts.rows), 1))
    if prompts.given is None:
        return ids.tolist()
    return arrays.of(prompts.given).asarray(ids.copy(), "int64", like=prompts.given)
