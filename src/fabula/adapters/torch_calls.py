"""One call of a module: a rectangle of rows goes in, logits come out, and what the module keeps for its next call."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from fabula.errors import ArgumentError

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
        self.accepts = _arguments(module)

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
        logits = logits_of(output)
        rectangle = (columns.ids.shape[0], columns.new)
        if logits.ndim != 3 or logits.shape[0] != rectangle[0] or logits.shape[1] not in (1, rectangle[1]):
            raise ArgumentError(
                f"`forward` must return logits of the shape [rows, columns, vocabulary], here {[*rectangle, 'V']}, "
                f"got {list(logits.shape)}. Return them for every column that it is given."
            )
        return Computed(logits, _named(output, "past_key_values", 1), _named(output, "hidden_states", None))


def head_of(module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The module's `get_output_embeddings()`, if it has one."""
    own = getattr(module, "get_output_embeddings", None)
    return None if own is None else own()


def logits_of(output: Any) -> torch.Tensor:
    """The logits in what a module returns. Raises ArgumentError where there are none."""
    logits = output if isinstance(output, torch.Tensor) else _named(output, "logits", 0)
    if not isinstance(logits, torch.Tensor):
        raise ArgumentError(
            f"`forward` must return logits, or an object or tuple with them, got {type(output).__name__}. "
            "Return a tensor of the shape [rows, columns, vocabulary]."
        )
    return logits


def _named(output: Any, name: str, place: int | None) -> Any:
    """A part of an output by its name, its key, or its place in a tuple."""
    if isinstance(output, Mapping):
        return output.get(name)
    if isinstance(output, (tuple, list)) and not hasattr(output, name):
        return output[place] if place is not None and place < len(output) else None
    return getattr(output, name, None)


def _arguments(module: torch.nn.Module) -> frozenset[str]:
    """The names of what `forward` takes, the first one aside: that gets the ids."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    named = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    return frozenset(one.name for one in parameters[1:] if one.kind in named)
