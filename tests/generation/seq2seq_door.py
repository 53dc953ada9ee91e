"""The steps of generate() for a model with an encoder, one after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fabula.generation.callers_own import CallersOwn
from fabula.generation.encoder import decoder_prompts, encode, read_encoder_inputs, start_tokens
from fabula.generation.layout import lay_out
from fabula.generation.recipe import token_ids
from fabula.generation.requests import Given, build_requests
from fabula.generation.rules import resolve


def answer(model: Any, input_ids: Any = None, attention_mask: Any = None, **call: Any) -> Any:
    """What generate(input_ids, attention_mask, ...) returns."""
    names = ("encoder_outputs", "decoder_input_ids", "decoder_attention_mask")
    outputs, decoder_ids, decoder_mask = (call.pop(name, None) for name in names)
    config, _ = resolve(call, None, model.generation_config, accepts=())
    eos, bos = frozenset(token_ids(config.eos_token_id)), config.bos_token_id
    inputs = read_encoder_inputs(input_ids, attention_mask, outputs, pad=config.pad_token_id, eos=eos, bos=bos)
    starts = start_tokens(config.decoder_start_token_id, bos, inputs.rows)
    prompts = decoder_prompts(decoder_ids, decoder_mask, starts, inputs.like)
    own = CallersOwn.taken_from({}).seen_as(prompts.given, model.vocabulary_size)
    collectors, requests = build_requests(model, Given(prompts, config, None, own), None)
    memories = encode(model, inputs).memories
    model.engine.run(replace(request, memory=memory) for request, memory in zip(requests, memories, strict=True))
    for collector in collectors:
        if collector.error is not None:
            raise collector.error
    return lay_out(prompts, config, collectors)
