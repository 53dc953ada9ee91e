"""What `model(...)` returns: logits, and what else was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any


class Output:
    """What a subclass, a dataclass, holds by attribute, key and place; what is None has neither key nor place."""

    __slots__ = ()

    def keys(self) -> tuple[str, ...]:
        """The names of what is there."""
        names = (field.name for field in fields(self))  # type: ignore[arg-type]
        return tuple(name for name in names if getattr(self, name) is not None)

    def values(self) -> tuple[Any, ...]:
        """What is there, in order."""
        return self.to_tuple()

    def items(self) -> tuple[tuple[str, Any], ...]:
        """The names of what is there, each with it."""
        return tuple(zip(self.keys(), self.to_tuple(), strict=True))

    def get(self, key: str, default: Any = None) -> Any:
        """What has this name, or `default` where there is nothing."""
        return dict(self.items()).get(key, default)

    def to_tuple(self) -> tuple[Any, ...]:
        """What is there, in order."""
        return tuple(getattr(self, name) for name in self.keys())

    def __getitem__(self, key: str | int | slice) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in self.keys():
            raise KeyError(key)
        return getattr(self, key)

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())


@dataclass(frozen=True, slots=True)
class CausalLMOutput(Output):
    """R rows of S columns."""

    loss: Any = None  # Float[""]: mean cross-entropy of the labels, if they were given
    logits: Any = None  # Float["R S V"]; zero where the mask is
    past_key_values: Any = None  # Past: to be handed to the next call
    hidden_states: tuple[Any, ...] | None = None  # of each: Float["R S D"]: embeddings, then every layer's output
    attentions: tuple[Any, ...] | None = None  # of each layer: Float["R heads S K"]


@dataclass(frozen=True, slots=True)
class EncoderOutput(Output):
    """What an encoder makes of R rows of S columns."""

    last_hidden_state: Any = None  # Float["R S D"]; zero where the mask is
    hidden_states: tuple[Any, ...] | None = None  # of each: Float["R S D"]: embeddings, then every layer's output
    attentions: tuple[Any, ...] | None = None  # of each layer: Float["R heads S S"]


@dataclass(frozen=True, slots=True)
class Seq2SeqLMOutput(Output):
    """R rows: T columns of the decoder, S of the encoder."""

    loss: Any = None  # Float[""]: mean cross-entropy of the labels, if they were given
    logits: Any = None  # Float["R T V"]; zero where the decoder's mask is
    past_key_values: Any = None  # Past: to be handed to the next call
    decoder_hidden_states: tuple[Any, ...] | None = None  # of each: Float["R T D"]
    decoder_attentions: tuple[Any, ...] | None = None  # of each layer: Float["R heads T K"]
    cross_attentions: tuple[Any, ...] | None = None  # of each layer: Float["R heads T S"]
    encoder_last_hidden_state: Any = None  # Float["R S D"]
    encoder_hidden_states: tuple[Any, ...] | None = None  # of each: Float["R S D"]
    encoder_attentions: tuple[Any, ...] | None = None  # of each layer: Float["R heads S S"]
