"""What generate() returns with `return_dict_in_generate`: values by attribute, name, index and slice."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from fabula.errors import NotSupportedError

__all__ = [
    "GenerateBeamDecoderOnlyOutput",
    "GenerateBeamEncoderDecoderOutput",
    "GenerateDecoderOnlyOutput",
    "GenerateEncoderDecoderOutput",
    "ModelOutput",
]


class ModelOutput(OrderedDict[str, Any]):
    """An ordered mapping of the fields that are not None, which are attributes as well; a subclass is a dataclass.

    Indices and slices count only what is there. Nothing can be removed.
    """

    def __post_init__(self) -> None:
        """Enter the fields that are not None, in their order."""
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is not None:
                super().__setitem__(field.name, value)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if value is not None and name in {field.name for field in fields(self)}:  # type: ignore[arg-type]
            super().__setitem__(name, value)
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are not None, in the order of the fields that hold them."""
        return tuple(self.values())

    def _keep(self, *arguments: Any, **named: Any) -> NoReturn:
        """Refuse what would take a value away or set several at once."""
        raise NotSupportedError(f"A {type(self).__name__} keeps what it holds. Copy it with dict(output) to change it.")

    __delitem__ = pop = popitem = setdefault = update = clear = _keep


@dataclass
class GenerateDecoderOnlyOutput(ModelOutput):
    """Sequences of greedy search or sampling. R rows (prompts times sequences), N steps, V vocabulary."""

    sequences: Any  # Int["R L"]: prompt and new tokens, finished rows filled with the pad token
    scores: tuple[Any, ...] | None = None  # N of Float["R V"]: after the processors
    logits: tuple[Any, ...] | None = None  # N of Float["R V"]: as the model gave them
    attentions: tuple[tuple[Any, ...], ...] | None = None  # a step, a layer
    hidden_states: tuple[tuple[Any, ...], ...] | None = None  # a step, a layer
    past_key_values: Any = None  # the cache
    finish_reasons: list[Any] | None = None  # R: why each row ended
    log_probabilities: Any = None  # Float["R N"]: log-softmax of the raw logits at the new tokens; 0 behind a row's end
    top_log_probabilities: list[Any] | None = None  # R: a new token: the likeliest (token, log-probability)
    prompt_log_probabilities: list[Any] | None = None  # a prompt: Float["P-1"], of its tokens but the first
    prompt_top_log_probabilities: list[Any] | None = None  # a prompt: a token but the first: the likeliest


@dataclass
class GenerateEncoderDecoderOutput(ModelOutput):
    """The same of a model with an encoder."""

    sequences: Any
    scores: tuple[Any, ...] | None = None
    logits: tuple[Any, ...] | None = None
    encoder_attentions: tuple[Any, ...] | None = None  # a layer
    encoder_hidden_states: tuple[Any, ...] | None = None  # a layer
    decoder_attentions: tuple[tuple[Any, ...], ...] | None = None
    cross_attentions: tuple[tuple[Any, ...], ...] | None = None
    decoder_hidden_states: tuple[tuple[Any, ...], ...] | None = None
    past_key_values: Any = None
    finish_reasons: list[Any] | None = None
    log_probabilities: Any = None
    top_log_probabilities: list[Any] | None = None
    prompt_log_probabilities: list[Any] | None = None
    prompt_top_log_probabilities: list[Any] | None = None


@dataclass
class GenerateBeamDecoderOnlyOutput(ModelOutput):
    """Sequences of beam search. `scores` and `logits` are of all beams, before a step's choice."""

    sequences: Any
    sequences_scores: Any = None  # Float["R"]: sum of log-probabilities / length ** length_penalty
    scores: tuple[Any, ...] | None = None
    logits: tuple[Any, ...] | None = None
    beam_indices: Any = None  # Int["R N"]: the beam each token came from, -1 past a sequence's end
    attentions: tuple[tuple[Any, ...], ...] | None = None
    hidden_states: tuple[tuple[Any, ...], ...] | None = None
    past_key_values: Any = None
    finish_reasons: list[Any] | None = None
    log_probabilities: Any = None
    top_log_probabilities: list[Any] | None = None
    prompt_log_probabilities: list[Any] | None = None
    prompt_top_log_probabilities: list[Any] | None = None


@dataclass
class GenerateBeamEncoderDecoderOutput(ModelOutput):
    """The same of a model with an encoder."""

    sequences: Any
    sequences_scores: Any = None
    scores: tuple[Any, ...] | None = None
    logits: tuple[Any, ...] | None = None
    beam_indices: Any = None
    encoder_attentions: tuple[Any, ...] | None = None
    encoder_hidden_states: tuple[Any, ...] | None = None
    decoder_attentions: tuple[tuple[Any, ...], ...] | None = None
    cross_attentions: tuple[tuple[Any, ...], ...] | None = None
    decoder_hidden_states: tuple[tuple[Any, ...], ...] | None = None
    past_key_values: Any = None
    finish_reasons: list[Any] | None = None
    log_probabilities: Any = None
    top_log_probabilities: list[Any] | None = None
    prompt_log_probabilities: list[Any] | None = None
    prompt_top_log_probabilities: list[Any] | None = None
