"""What `model(...)` returns: logits, and what else was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class CausalLMOutput:
    """R rows of S columns. Attributes, keys and places all work; what is None has neither key nor place."""

    loss: Any = None  # Float[""]: mean cross-entropy of the labels, if they were given
    logits: Any = None  # Float["R S V"]; zero where the mask is
    past_key_values: Any = None  # Past: to be handed to the next call
    hidden_states: tuple[Any, ...] | None = None  # of each: Float["R S D"]: embeddings, then every layer's output
    attentions: tuple[Any, ...] | None = None  # of each layer: Float["R heads S K"]

    def keys(self) -> tuple[str, ...]:
        """The names of what is there."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is not None)

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
