"""The operations in PyTorch, during one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from fabula.cache.blocks import BLOCK
from fabula.cache.torch import TorchCache
from fabula.errors import ArgumentError
from fabula.ops.protocol import NO_TAPS, Activation, Taps
from fabula.ops.specs import AttentionSpec, LayerSpec, RopeSpec
from fabula.ops.torch_attention import added_mask, attend_group, position_bias
from fabula.ops.torch_layout import Group, Layout, first_blocks
from fabula.ops.torch_memory import MemoryLayout, attend_memories
from fabula.ops.torch_rotation import Rotations

Tensor = torch.Tensor
Elsewhere = Callable[[torch.device], tuple[Layout, MemoryLayout | None]]  # a step's indices on another device


class TorchOps:
    """Operations on tensors [T, features]. Roundings in 16-bit types fall where transformers has them."""

    def __init__(
        self,
        layout: Layout,
        cache: TorchCache | None = None,
        taps: Taps = NO_TAPS,
        vectors: Tensor | None = None,
        memories: MemoryLayout | None = None,
        places: Tensor | None = None,
        rotations: Rotations | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """`vectors` stand for the embedded tokens: for all of them, or for those at `places`.

        `layout` and `memories` are where the step begins; `elsewhere` makes them on another device, for layers there.
        """
        self.layout = layout
        self.cache = cache
        self.taps = taps
        self.vectors = vectors
        self.places = places
        self.memories = memories
        self._elsewhere = elsewhere
        self._there: dict[torch.device, tuple[Layout, MemoryLayout | None]] = {}
        self.attentions: dict[int, tuple[Tensor, ...]] = {}  # layer -> for each row Float["heads new keys"]
        self.memory_attentions: dict[int, tuple[Tensor, ...]] = {}  # layer -> for each row Float["heads new columns"]
        self._rotations = rotations or Rotations()
        self._masks: dict[tuple[int | None, torch.dtype, torch.device], list[Tensor | None]] = {}
        self._biases: tuple[Tensor, tuple[AttentionSpec, torch.device], list[Tensor]] | None = None  # the last weight's
        self._angles: dict[tuple[RopeSpec, torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def _at(self, x: Tensor) -> tuple[Layout, MemoryLayout | None]:
        """The step's indices where x is."""
        if self._elsewhere is None or x.device == self.layout.positions.device:
            return self.layout, self.memories
        if x.device not in self._there:
            self._there[x.device] = self._elsewhere(x.device)
        return self._there[x.device]

    def embed(self, weight: Tensor, scale: float = 1.0) -> Tensor:
        if self.vectors is not None and self.places is None:
            return self.vectors.to(weight.dtype)
        x = F.embedding(self.layout.tokens, weight)
        x = x if scale == 1.0 else x * torch.tensor(scale, dtype=x.dtype)
        if self.vectors is None or self.places is None:
            return x
        return x.index_copy(0, self.places, self.vectors.to(x.dtype))

    def embed_positions(self, weight: Tensor) -> Tensor:
        return F.embedding(self.layout.positions, weight)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, weight, bias)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, offset: float = 0.0) -> Tensor:
        shape, size = x.shape, weight.shape[0]
        if x.dtype == torch.float32 and shape[1:] == (size,):
            return F.rms_norm(x, (size,), weight + offset if offset else weight, eps)
        runs = x.view(-1, size)
        if x.dtype == torch.float32:
            return F.rms_norm(runs, (size,), weight + offset if offset else weight, eps).view(shape)
        wide = F.rms_norm(runs.float(), (size,), None, eps)
        if offset:
            return (wide * (weight.float() + offset)).to(x.dtype).view(shape)
        return (wide.to(x.dtype) * weight).view(shape)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return F.layer_norm(x, weight.shape, weight, bias, eps)

    def split(self, x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
        return tuple(x.split(list(sizes), -1))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def rope(self, x: Tensor, rope: RopeSpec) -> Tensor:
        cosine, sine = self._rotation(rope, x)
        heads = x.view(x.shape[0], -1, rope.head_dim)
        turned = 2 * len(rope.inverse_frequencies)
        own = heads if turned == rope.head_dim else heads[..., :turned]
        out = own * cosine + own.roll(turned // 2, -1) * sine
        return (out if turned == rope.head_dim else torch.cat((out, heads[..., turned:]), -1)).view(x.shape)

    def _rotation(self, rope: RopeSpec, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [T, 1, 2 * frequencies], looked up once a step."""
        key = (rope, x.dtype, x.device)
        known = self._angles.get(key)
        if known is None:
            layout, _ = self._at(x)
            self._angles[key] = known = self._rotations.at(rope, x.dtype, layout.positions, layout.end)
        return known

    def scale(self, x: Tensor, factor: float) -> Tensor:
        return x * factor

    def attend(self, layer: LayerSpec, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        spec = layer.attention
        shape = (q.shape[0], -1, spec.head_dim)
        projected = (q.view(shape), k.view(shape), v.view(shape))
        layout, _ = self._at(q)
        if self.cache is not None:
            if layout.begun is not None:
                self.cache.clear(layer.index, layout.begun)
            stored = self.cache.write(layer.index, layout.slots, projected[1], projected[2])
            projected = (projected[0], *stored)
        tapped = layer.index in self.taps.attentions
        groups = layout.groups
        biases = self._added(spec, q, groups) if bias is None else self._position_biases(spec, q, bias, groups)
        parts = [
            attend_group(group, spec, layer.index, projected, self.cache, tapped, each)
            for group, each in zip(groups, biases, strict=True)
        ]
        if tapped:
            shown = [weights for _, weights in parts if weights is not None]
            self.attentions[layer.index] = _by_row(groups, shown, spec.window)
        out = parts[0][0] if len(parts) == 1 else torch.cat([part for part, _ in parts])
        return out if layout.restore is None else out.index_select(0, layout.restore)

    def _added(self, spec: AttentionSpec, like: Tensor, groups: Sequence[Group]) -> list[Tensor | None]:
        """For each group what masks add to scores, made once for all layers of a window."""
        key = (spec.window, like.dtype, like.device)
        known = self._masks.get(key)
        if known is None:
            reaches = [group.reaches[spec.window] for group in groups]
            known = [None if reach.mask is None else added_mask(reach.mask, like.dtype) for reach in reaches]
            self._masks[key] = known
        return known

    def _position_biases(
        self, spec: AttentionSpec, like: Tensor, weight: Tensor, groups: Sequence[Group]
    ) -> list[Tensor]:
        """For each group what distances add; layers that share a weight share these."""
        known = self._biases
        if known is None or known[0] is not weight or known[1] != (spec, like.device):
            there = weight.to(like.device)
            buckets = self._rotations.buckets(spec, like.device)
            made = [position_bias(group.reaches[spec.window], spec, there, buckets) for group in groups]
            self._biases = known = (weight, (spec, like.device), made)
        return known[2]

    def attend_memory(self, layer: LayerSpec, q: Tensor) -> Tensor:
        assert layer.memory is not None
        _, memories = self._at(q)
        if memories is None:
            raise ArgumentError("each row of a model with an encoder must have a memory, got none. Encode its input.")
        tapped = layer.index in self.taps.attentions
        out, weights = attend_memories(memories, layer.memory, layer.index, q, tapped)
        if tapped:
            self.memory_attentions[layer.index] = weights
        return out

    def activate(self, x: Tensor, kind: Activation) -> Tensor:
        return _ACTIVATIONS[kind](x)

    def gated_mlp(self, x: Tensor, gate: Tensor, up: Tensor, kind: Activation) -> Tensor:
        return _ACTIVATIONS[kind](F.linear(x, gate)) * F.linear(x, up)

    def scored(self, x: Tensor) -> Tensor:
        layout, _ = self._at(x)
        return x if layout.scored is None else x.index_select(0, layout.scored)

    def softcap(self, x: Tensor, cap: float) -> Tensor:
        return cap * torch.tanh(x / cap)


def _by_row(groups: Sequence[Group], weights: Sequence[Tensor], window: int | None) -> tuple[Tensor, ...]:
    """The weights of each row of the batch, [heads, new, keys], from those of the groups, [R, heads, N, K].

    Where only the blocks within the window were read, those of the keys before are zero.
    """
    found = {}
    for group, part in zip(groups, weights, strict=True):
        first = np.subtract(group.lengths, group.counts)
        starts = (first_blocks(first, window) * BLOCK).tolist()
        for place, row in enumerate(group.order):
            own = part[place, :, : group.counts[place], : group.lengths[place] - starts[place]]
            found[row] = F.pad(own, (starts[place], 0))
    return tuple(found[row] for row in sorted(found))


_ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}
