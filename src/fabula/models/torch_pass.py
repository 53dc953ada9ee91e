"""One pass through a family's layers in PyTorch, up to the last norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch

from fabula.cache.torch import TorchCache
from fabula.models.family import Stack
from fabula.ops.layers import unrolled
from fabula.ops.protocol import Batch, Taps
from fabula.ops.torch import TorchOps
from fabula.ops.torch_layout import at_positions, build_layout
from fabula.ops.torch_memory import memory_layout
from fabula.ops.torch_rotation import Rotations


@dataclass(frozen=True, slots=True)
class Weights:
    """A family's weights under its field names."""

    outside: SimpleNamespace
    layers: Sequence[SimpleNamespace]
    rotations: Rotations | None = None  # what is kept of earlier steps' positions


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
    device = weights.outside.embed.device
    windows = tuple(dict.fromkeys(layer.attention.window for layer in family.layers))
    causal = all(layer.attention.causal for layer in family.layers)
    layout = build_layout(batch, windows, cache is not None, device, causal)
    if inputs.tokens is not None:
        layout = replace(layout, tokens=inputs.tokens)
    if inputs.positions is not None:
        layout = at_positions(layout, inputs.positions)
    vectors = batch.vectors if inputs.vectors is None else inputs.vectors
    vectors = None if vectors is None else torch.as_tensor(vectors, device=device)
    places = None if batch.places is None else torch.from_numpy(batch.places).to(device, torch.int64)
    ops = TorchOps(layout, cache, taps, vectors, memory_layout(batch, device), places, weights.rotations)
    states: dict[int, torch.Tensor] = {}

    def tap(layer: int, x: torch.Tensor) -> None:
        if layer in taps.hidden_states or layer in taps.layer_logits:
            states[layer] = ops.scored(x)

    x = unrolled(family, ops, family.embed(ops, weights.outside), weights.layers, tap, taps.last_layer)
    return Computed(family.final(ops, ops.scored(x), weights.outside), states, ops)
