"""What a model family is: a configuration, a weight table, and a forward pass written over the operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar

from fabula.errors import NotSupportedError
from fabula.models.families.settings import Settings
from fabula.ops.protocol import Activation, Array, Ops
from fabula.ops.specs import LayerSpec, RopeSpec


@dataclass(frozen=True, slots=True)
class Entry:
    """One weight: its name in a Hugging Face checkpoint ("{layer}" is the layer's number) and its shape there."""

    name: str
    shape: tuple[int, ...]
    transposed: bool = False  # stored [in, out] (GPT-2's Conv1D), used as [out, in]
    optional: bool = False  # absent from some checkpoints; the family then sees None
    tied: str | None = None  # the field that serves where this one is absent or the configuration ties them
    own: bool = False  # tied only where the checkpoint has nothing else for it, whatever the configuration says
    table: bool = False  # of two dimensions, but looked up and no factor: never packed


class Stack(ABC):
    """Layers, what comes before them and a norm. `w` holds the prepared weights under the table's field names."""

    embedding_scale: float = 1.0  # multiplies the embedding's rows
    config: Settings
    layers: tuple[LayerSpec, ...]

    @abstractmethod
    def __init__(self, config: Settings) -> None:
        """Raises NotSupportedError for a switch that the family file does not implement, by its key."""

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


class Family(Stack):
    """A family: one file, one subclass. Its layers are those that generate."""

    model_types: ClassVar[tuple[str, ...]]  # values of config.json's "model_type"
    defaults: ClassVar[Mapping[str, Any]]  # what an absent key of config.json means
    aliases: ClassVar[Mapping[str, str]] = MappingProxyType({})  # the usual name of a key -> this family's name
    rotary: ClassVar[bool] = True  # positions are rotations

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """All layers that the family has weights for; its own come last."""
        return (self,)

    @classmethod
    def settled(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A config.json's values with the keys that follow from others."""
        return values

    @abstractmethod
    def logits(self, ops: Ops, hidden: Array, w: SimpleNamespace) -> Any:
        """The head, and its softcap; given only the scored positions."""


class EncoderDecoder(Family):
    """A family whose layers, the decoder's, also attend to what an encoder made of another text."""

    encoder: Stack

    @property
    def stacks(self) -> tuple[Stack, ...]:
        return (self.encoder, self)

    @abstractmethod
    def memory(self, ops: Ops, encoded: Array, w: SimpleNamespace, layer: LayerSpec) -> tuple[Array, Array]:
        """The keys and values that a decoder layer reads of the encoder's output, each [T, kv_heads * head_dim]."""


def activation(config: Settings, key: str) -> Activation:
    """The activation that a configuration names under `key`."""
    name = config.get(key)
    kind = _ACTIVATIONS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise NotSupportedError(f"{key} must be one of {', '.join(_ACTIVATIONS)}, got {name!r}.")
    return kind


def whole_rotation(rope: RopeSpec) -> RopeSpec:
    """The rotation, refused where it leaves a part of each head: transformers turns these families' heads whole."""
    turned = 2 * len(rope.inverse_frequencies)
    if turned != rope.head_dim:
        raise NotSupportedError(f"partial_rotary_factor must be 1 in this family, got {turned / rope.head_dim:g}.")
    return rope


def require(config: Settings, key: str, allowed: Any) -> None:
    """Refuses a configuration whose `key` is set to anything but `allowed`."""
    if config.get(key, allowed) != allowed:
        raise NotSupportedError(
            f"{key} must be {allowed!r} in a {config.model_type} configuration, got {config.get(key)!r}. "
            "Nothing else is implemented."
        )


_ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}
