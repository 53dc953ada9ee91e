"""One call of a module: a rectangle of rows goes in, logits come out, and what the module keeps for its next call."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from fabula.adapters.calls import arguments, check_shape, head_of, logits_of, named

Cache = Literal["none", "own", "columns"]  # columns: the module's, made so that any of its columns can be dropped
Padding = Literal["left", "right", "none"]


@dataclass(frozen=True, slots=True)
class Way:
    """How rows of different lengths become rectangles, and what a module keeps between two calls."""

    cache: Cache
    padding: Padding  # "none": only rows of equal length are computed together


@dataclass(frozen=True, slots=True)
class Columns:
    """A rectangle of R rows and C columns, of which the last are to be computed; the others are in the past."""

    ids: torch.Tensor  # Int64["R C"]: anything where there is padding
    mask: torch.Tensor  # Bool["R C"]: which columns are tokens
    padded: bool  # whether any is not
    new: int  # columns to be computed
    scored: int  # the last columns whose logits are wanted: no more than the new ones
    hidden: bool = False  # whether hidden states are wanted
    memory: Sequence[Any] = ()  # what an encoder made of each row's input


@dataclass(frozen=True, slots=True)
class Computed:
    """What a call gave."""

    logits: torch.Tensor  # Float["R N V"]: of the last N columns, at least the scored ones
    past: Any = None  # to be handed to the next call
    hidden: tuple[torch.Tensor, ...] | None = None  # the embeddings, then each layer: Float["R new D"]


class ModuleCall(Protocol):
    """How a module is called."""

    padding_id: int  # what stands where there is no token
    last_only: bool  # whether only the last column's logits mean anything
    shows_states: bool  # whether it can be asked for hidden states

    @property
    def module(self) -> torch.nn.Module:
        """The module, which lives as long as anybody calls it."""

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""

    @property
    def ways(self) -> Sequence[Way]:
        """In the order in which they are tried."""

    @property
    def truth(self) -> Way:
        """The way that is right for a row alone, taken where no other gives the same."""

    @property
    def head(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """What makes logits of hidden states, if it can be had alone."""

    def __call__(self, columns: Columns, past: Any, way: Way) -> Computed:
        """Computes the new columns. `past` is None for a row's first columns."""


class OwnCall:
    """A module with `forward(input_ids)`, or with any of the other arguments that transformers' models take."""

    last_only = False
    padding_id = 0

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = weakref.ref(module)  # the module holds this call, which must not hold it in turn
        self.accepts = arguments(module.forward)
        self.shows_states = "output_hidden_states" in self.accepts

    @property
    def module(self) -> torch.nn.Module:
        """The module, which lives as long as anybody calls it."""
        module = self._module()
        assert module is not None
        return module

    @property
    def device(self) -> torch.device:
        """Where the module's parameters are."""
        return next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))

    @property
    def head(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """What makes logits of hidden states, if the module says."""
        return head_of(self.module)

    @property
    def ways(self) -> tuple[Way, ...]:
        """A module without a mask can still be padded on the right, as long as it looks only backwards."""
        masked = "attention_mask" in self.accepts
        cached = {"past_key_values", "use_cache"} <= self.accepts
        ways = [Way("own", "left")] * (cached and masked) + [Way("own", "none")] * cached
        return (*ways, Way("none", "right"), *[Way("none", "left")] * masked)

    @property
    def truth(self) -> Way:
        """Nothing kept."""
        return Way("none", "none")

    def __call__(self, columns: Columns, past: Any, way: Way) -> Computed:
        """See ModuleCall."""
        mask = columns.mask.long()
        given = {
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, -columns.new :],
            "past_key_values": past,
            "use_cache": way.cache != "none",
            "output_hidden_states": columns.hidden,
        }
        output = self.module(
            columns.ids[:, -columns.new :], **{name: given[name] for name in given if name in self.accepts}
        )
        logits = logits_of(output, torch.Tensor, "forward")
        check_shape(logits, len(columns.ids), {1, columns.new}, "forward")
        return Computed(logits, named(output, "past_key_values", 1), named(output, "hidden_states", None))
