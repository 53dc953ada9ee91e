"""generate_batch(): many prompts of ids, each with settings of its own, and an answer to each as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import IntEnum
from importlib import import_module
from typing import Any

from fabula import arrays
from fabula.engine.request import FinishReason, Request, Step
from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.caches import run_requests
from fabula.generation.generate import Call, prepare
from fabula.generation.settings.config import GenerationConfig
from fabula.generation.settings.configs import SHARED, configs_for, given_configs, streams_for

__all__ = ["GenerationOutput", "RequestStatus", "generate_batch"]

_PASSED_ON = (  # arguments that are no settings
    *("logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn"),
    *("tokenizer", "assistant_model", "assistant_tokenizer"),
)
_NO_EFFECT = ("persistent_manager", "warmup")  # a model's engine is always there, and always warm
_REFUSED = {
    "continuous_batching_config": "one engine runs every call, and nothing of it is to be set",
    "streamer": "on_result gets each answer as it ends; generate() streams",
    "custom_generate": "it takes the place of generate()",
    "past_key_values": "each answer starts from its prompt; generate() goes on from what an earlier call kept",
    "attention_mask": "prompts are lists of different lengths, without padding",
}


class RequestStatus(IntEnum):
    """How far a request has come."""

    PENDING = 0
    PREFILLING = 1
    DECODING = 2
    FINISHED = 3
    FAILED = 4


@dataclass
class GenerationOutput:
    """What became of one sequence; times are time.perf_counter()'s."""

    request_id: str  # "req_<prompt>"; of a prompt's further sequences "req_<prompt>__child#<number>"
    prompt_ids: list[int] = field(default_factory=list)
    generated_tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # of the new tokens, if asked for: log-softmax of raw logits
    error: str | None = None  # why it failed
    status: RequestStatus = RequestStatus.PENDING
    created_time: float = field(default_factory=time.perf_counter)
    lifespan: tuple[float, float] = (-1, -1)  # when its first token was handed out and when it ended; -1: never
    timestamps: list[float] | None = None  # of the new tokens, if asked for
    finish_reason: str | None = None  # "stop", "length" or "time"

    def is_finished(self) -> bool:
        """Whether nothing more will come, for better or worse."""
        return self.status >= RequestStatus.FINISHED


OnResult = Callable[[GenerationOutput], Any]


def generate_batch(
    model: Any,
    inputs: Sequence[Any],
    generation_config: Any = None,
    *,
    record_timestamps: bool = False,
    return_logprobs: bool = False,
    progress_bar: bool = False,
    on_result: OnResult | None = None,
    **call: Any,
) -> dict[str, GenerationOutput]:
    """An output for each sequence, by its id, in the order of the prompts; see `GenerationMixin.generate_batch`."""
    call = _checked_call(inputs, call)
    settings = {name: value for name, value in call.items() if name not in _PASSED_ON}
    configs = configs_for(settings, generation_config, model.generation_config, len(inputs))
    _refuse_recordings(configs)
    own = given_configs(generation_config, len(inputs))
    streams = streams_for(settings, generation_config, configs, None)
    outputs = [_outputs(index, ids, config) for index, (ids, config) in enumerate(zip(inputs, configs, strict=True))]
    with closing(_bar(sum(map(len, outputs)), progress_bar)) as bar:
        teller = _Teller(on_result, bar.update)
        calls, requests = [], []
        for index, (rows, stream) in enumerate(zip(outputs, streams, strict=True)):
            sink = _Rows(rows, teller, record_timestamps)
            arguments = _of_prompt(call, index, bool(configs[index].do_sample))
            one = _call(model, inputs[index], own[index], arguments, sink)
            if one is not None:
                calls.append(one)
                requests.append(_with(one.requests[0], sink, stream, return_logprobs))
        run_requests(model, requests, [one.config for one in calls], [one.kinds[0] for one in calls])
    teller.raise_what_went_wrong()
    return {output.request_id: output for rows in outputs for output in rows}


def _checked_call(inputs: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    """The call without what has no effect. Raises ArgumentError, NotSupportedError."""
    if not isinstance(inputs, (list, tuple)):
        raise ArgumentError(f"`inputs` must be a list of prompts, each a list of ids, got {type(inputs).__name__}.")
    for name, reason in _REFUSED.items():
        if call.get(name) is not None:
            raise NotSupportedError(f"`{name}` is not an argument of generate_batch(): {reason}.")
    return {name: value for name, value in call.items() if name not in (*_NO_EFFECT, *_REFUSED)}


def _refuse_recordings(configs: Sequence[GenerationConfig]) -> None:
    for name in SHARED:
        if name.startswith("output_") and any(getattr(config, name, None) for config in configs):
            raise NotSupportedError(f"`{name}` is not done by generate_batch(). Call generate(), or leave it out.")


def _outputs(index: int, ids: Any, config: GenerationConfig) -> list[GenerationOutput]:
    """What will be told of a prompt's sequences."""
    name = f"req_{index}"
    names = [name, *(f"{name}__child#{child}" for child in range((config.num_return_sequences or 1) - 1))]
    prompt = arrays.listed(ids)
    prompt = list(prompt) if isinstance(prompt, (list, tuple)) else []
    return [GenerationOutput(one, list(prompt)) for one in names]


def _bar(total: int, shown: bool) -> Any:
    return import_module("tqdm").tqdm(total=total, disable=not shown, desc="generate_batch", unit="sequence")


def _of_prompt(call: Mapping[str, Any], index: int, sampled: bool) -> dict[str, Any]:
    """The call's arguments for one of its prompts; what it draws with is decided for all of them together."""
    arguments = {**call, "seed": 0} if sampled else dict(call)
    allowed = call.get("prefix_allowed_tokens_fn")
    if callable(allowed):
        arguments["prefix_allowed_tokens_fn"] = lambda _, ids: allowed(index, ids)
    return arguments


def _call(model: Any, ids: Any, config: Any, arguments: dict[str, Any], sink: _Rows) -> Call | None:
    """The prompt's call; None where the prompt cannot be answered, which its outputs then say."""
    try:
        return prepare(model, [ids], config, None, arguments)
    except ArgumentError as error:
        sink.fail(error)
        return None


def _with(request: Request, sink: _Rows, stream: tuple[int, int], return_logprobs: bool) -> Request:
    """The request with its own sink, seed and stream, and log-probabilities where they are asked for."""
    if return_logprobs:
        record = replace(request.recipe.record, log_probabilities=request.recipe.record.log_probabilities or 0)
        request = replace(request, recipe=replace(request.recipe, record=record))
    return replace(request, sink=sink, seed=stream[0], stream=stream[1])


class _Teller:
    """Tells of finished sequences; what the caller's function raises ends the whole call."""

    def __init__(self, on_result: OnResult | None, count: Callable[[], Any]) -> None:
        self._on_result = on_result
        self._count = count
        self._error: BaseException | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether the caller wants each answer as it ends."""
        return self._on_result is not None

    def tell(self, output: GenerationOutput) -> None:
        self._count()
        if self._on_result is None or self._error is not None:
            return
        try:
            self._on_result(output)
        except BaseException as error:
            self.stop(error)

    def stop(self, error: BaseException) -> None:
        """Ends the call with an error, unless there is one already."""
        self._error = self._error or error

    def raise_what_went_wrong(self) -> None:
        if self._error is not None:
            raise self._error


class _Rows:
    """The sink of a prompt's sequences: fills their outputs."""

    def __init__(self, outputs: list[GenerationOutput], teller: _Teller, stamped: bool) -> None:
        self.outputs = outputs
        self.teller = teller
        self.streams = stamped or teller.is_awaited  # whether each token is wanted as it comes
        for output in outputs:
            output.timestamps = [] if stamped else None

    def put(self, row: int, step: Step) -> None:
        self.teller.raise_what_went_wrong()
        output, now = self.outputs[row], time.perf_counter()
        if not output.generated_tokens:
            output.status, output.lifespan = RequestStatus.DECODING, (now, -1)
        output.generated_tokens.append(step.token)
        if step.log_probability is not None:
            output.logprobs.append(step.log_probability)
        if output.timestamps is not None:
            output.timestamps.append(now)

    def end(self, row: int, reason: FinishReason) -> None:
        output = self.outputs[row]
        output.status, output.finish_reason = RequestStatus.FINISHED, reason
        output.lifespan = (output.lifespan[0], time.perf_counter())
        self.teller.tell(output)

    def fail(self, error: BaseException) -> None:
        if not isinstance(error, Exception):  # sys.exit() in a callback is no answer
            self.teller.stop(error)
        for output in self.outputs:
            if not output.is_finished():
                output.status, output.error = RequestStatus.FAILED, str(error)
                output.lifespan = (output.lifespan[0], time.perf_counter())
                self.teller.tell(output)

    def turned(self, kept: Any) -> None:
        """Nothing of a search's turns is kept."""

    def found(self, row: int, hypothesis: Any) -> None:
        """A result's tokens follow."""

    def scored(self, prompt: Any) -> None:
        """Nothing of the prompt is kept."""

    def kept(self, row: int, kept: Any) -> None:
        """Nor of the row."""
