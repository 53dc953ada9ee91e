"""What a model family is: a configuration, a weight table, and a forward pass written over the operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

from fabula.models.config import ModelConfig
from fabula.ops.protocol import Array, Ops
from fabula.ops.specs import LayerSpec


@dataclass(frozen=True, slots=True)
class Entry:
    """One weight: its name in a Hugging Face checkpoint ("{layer}" is the layer's number) and its shape there."""

    name: str
    shape: tuple[int, ...]
    transposed: bool = False  # stored [in, out] (GPT-2's Conv1D), used as [out, in]
    optional: bool = False  # absent from some checkpoints; the family then sees None
    tied: str | None = None  # the field that serves where this one is absent or the configuration ties them


class Family(ABC):
    """A family: one file, one subclass. `w` holds the prepared weights under the table's field names."""

    model_types: ClassVar[tuple[str, ...]]  # values of config.json's "model_type"
    config: ModelConfig
    layers: tuple[LayerSpec, ...]

    @abstractmethod
    def weights(self) -> Mapping[str, Entry]:
        """The weights outside the layers: field -> entry."""

    @abstractmethod
    def layer_weights(self, layer: LayerSpec) -> Mapping[str, Entry]:
        """The weights of one layer: field -> entry."""

    @abstractmethod
    def embed(self, ops: Ops, w: SimpleNamespace) -> Array:
        """Token ids to activations."""

    @abstractmethod
    def block(self, ops: Ops, x: Array, w: SimpleNamespace, layer: LayerSpec) -> Array:
        """One layer."""

    @abstractmethod
    def final(self, ops: Ops, x: Array, w: SimpleNamespace) -> Array:
        """The last norm."""

    @abstractmethod
    def logits(self, ops: Ops, hidden: Array, w: SimpleNamespace) -> Any:
        """The head, and its softcap; given only the scored positions."""
