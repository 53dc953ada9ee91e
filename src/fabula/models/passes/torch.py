"""One pass through a family's layers in PyTorch, up to the last norm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch

from fabula.cache.torch import TorchCache
from fabula.models.families.family import Family, Stack
from fabula.ops.layers import unrolled
from fabula.ops.protocol import Batch, Taps
from fabula.ops.torch import TorchOps
from fabula.ops.torch_layout import Layout, at_positions, plan_layout
from fabula.ops.torch_memory import MemoryLayout, memory_layout
from fabula.ops.torch_rotation import Rotations


@dataclass(frozen=True, slots=True)
class Weights:
    """A family's weights under its field names."""

    outside: SimpleNamespace
    layers: Sequence[SimpleNamespace]
    rotations: Rotations | None = None  # what is kept of earlier steps' positions
    devices: Sequence[torch.device] | None = None  # of each layer; None: all weights lie together

    @property
    def home(self) -> torch.device:
        """Where a step begins: with the embeddings."""
        found: torch.device = self.outside.embed.device
        return found

    @property
    def end(self) -> torch.device:
        """Where a step ends: with the head, if there is one."""
        found: torch.device = vars(self.outside).get("head", self.outside.norm).device
        return found

    @property
    def arrive(self) -> Callable[[torch.Tensor, int], torch.Tensor] | None:
        """Brings a layer its input, where layers are on several devices."""
        devices = self.devices
        return None if devices is None else lambda x, layer: x.to(devices[layer], non_blocking=True)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What takes the place of a batch's own inputs, on the device already."""

    tokens: torch.Tensor | None = None  # Int["T"]
    vectors: torch.Tensor | None = None  # Float["T D"]
    positions: torch.Tensor | None = None  # Int["T"]: for the position embedding; what is seen does not change


@dataclass(frozen=True, slots=True)
class Computed:
    """What a pass leaves: S scored positions."""

    hidden: torch.Tensor  # Float["S D"]: after the last norm
    states: dict[int, torch.Tensor]  # tapped layer, for itself or for its logits -> Float["S D"]; 0: the embeddings
    ops: TorchOps

    @property
    def attentions(self) -> dict[int, tuple[torch.Tensor, ...]]:
        """Tapped layer -> for each row Float["heads new keys"]."""
        return self.ops.attentions


def compute(
    family: Stack,
    weights: Weights,
    batch: Batch,
    cache: TorchCache | None,
    taps: Taps,
    inputs: Inputs,
) -> Computed:
    """Runs the layers over a batch, and writes its keys and values to the cache if there is one."""
    device = weights.home
    windows = tuple(dict.fromkeys(layer.attention.window for layer in family.layers))
    causal = all(layer.attention.causal for layer in family.layers)
    layout_on = plan_layout(batch, windows, cache is not None, causal)

    def indices(there: torch.device) -> tuple[Layout, MemoryLayout | None]:
        layout = layout_on(there)
        if inputs.positions is not None:
            layout = at_positions(layout, inputs.positions.to(there))
        return layout, memory_layout(batch, there)

    layout, memories = indices(device)
    if inputs.tokens is not None:
        layout = replace(layout, tokens=inputs.tokens)
    vectors = batch.vectors if inputs.vectors is None else inputs.vectors
    vectors = None if vectors is None else torch.as_tensor(vectors, device=device)
    places = None if batch.places is None else torch.from_numpy(batch.places).to(device, torch.int64)
    elsewhere = None if weights.devices is None else indices
    ops = TorchOps(layout, cache, taps, vectors, memories, places, weights.rotations, elsewhere)
    states: dict[int, torch.Tensor] = {}

    def tap(layer: int, x: torch.Tensor) -> None:
        if layer in taps.hidden_states or layer in taps.layer_logits:
            states[layer] = ops.scored(x)

    x = family.embed(ops, weights.outside)
    x = unrolled(family, ops, x, weights.layers, tap, taps.last_layer, weights.arrive)
    return Computed(last_norm(family, ops, ops.scored(x), weights), states, ops)


def last_norm(family: Stack, ops: TorchOps, x: torch.Tensor, weights: Weights) -> torch.Tensor:
    """What is behind the layers, where its weights lie."""
    return family.final(ops, x.to(weights.outside.norm.device), weights.outside)


def head(family: Family, ops: TorchOps, hidden: torch.Tensor, weights: Weights) -> torch.Tensor:
    """The logits of hidden states, where the head lies."""
    logits: torch.Tensor = family.logits(ops, hidden.to(weights.end), weights.outside)
    return logits
