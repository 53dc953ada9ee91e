"""The operations in PyTorch, during one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F

from fabula.cache.torch import TorchCache
from fabula.errors import ArgumentError
from fabula.ops.protocol import NO_TAPS, Activation, Taps
from fabula.ops.specs import AttentionSpec, LayerSpec, RopeSpec
from fabula.ops.torch_attention import added_mask, attend_group, position_bias
from fabula.ops.torch_layout import Group, Layout
from fabula.ops.torch_memory import MemoryLayout, attend_memories
from fabula.ops.torch_rotation import Rotations

Tensor = torch.Tensor


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
    ) -> None:
        """`vectors` stand for the embedded tokens: for all of them, or for those at `places`."""
        self.layout = layout
        self.cache = cache
        self.taps = taps
        self.vectors = vectors
        self.places = places
        self.memories = memories
        self.attentions: dict[int, tuple[Tensor, ...]] = {}  # layer -> for each row Float["heads new keys"]
        self.memory_attentions: dict[int, tuple[Tensor, ...]] = {}  # layer -> for each row Float["heads new columns"]
        self._rotations = rotations or Rotations()
        self._masks: dict[tuple[int | None, torch.dtype], list[Tensor | None]] = {}
        self._biases: tuple[Tensor, AttentionSpec, list[Tensor]] | None = None  # the last weight's, for each group
        self._angles: dict[tuple[RopeSpec, torch.dtype], tuple[Tensor, Tensor]] = {}

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
        cosine, sine = self._rotation(rope, x.dtype)
        heads = x.view(x.shape[0], -1, rope.head_dim)
        turned = 2 * len(rope.inverse_frequencies)
        own = heads if turned == rope.head_dim else heads[..., :turned]
        out = own * cosine + own.roll(turned // 2, -1) * sine
        return (out if turned == rope.head_dim else torch.cat((out, heads[..., turned:]), -1)).view(x.shape)

    def _rotation(self, rope: RopeSpec, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines [T, 1, 2 * frequencies], looked up once a step."""
        known = self._angles.get((rope, dtype))
        if known is None:
            known = self._rotations.at(rope, dtype, self.layout.positions, self.layout.end)
            self._angles[rope, dtype] = known
        return known

    def scale(self, x: Tensor, factor: float) -> Tensor:
        return x * factor

    def attend(self, layer: LayerSpec, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        spec = layer.attention
        shape = (q.shape[0], -1, spec.head_dim)
        projected = (q.view(shape), k.view(shape), v.view(shape))
        if self.cache is not None:
            if self.layout.begun is not None:
                self.cache.clear(layer.index, self.layout.begun)
            stored = self.cache.write(layer.index, self.layout.slots, projected[1], projected[2])
            projected = (projected[0], *stored)
        tapped = layer.index in self.taps.attentions
        groups = self.layout.groups
        biases = self._added(spec, q.dtype) if bias is None else self._position_biases(spec, bias)
        parts = [
            attend_group(group, spec, layer.index, projected, self.cache, tapped, each)
            for group, each in zip(groups, biases, strict=True)
        ]
        if tapped:
            self.attentions[layer.index] = _by_row(groups, [weights for _, weights in parts if weights is not None])
        out = parts[0][0] if len(parts) == 1 else torch.cat([part for part, _ in parts])
        return out if self.layout.restore is None else out.index_select(0, self.layout.restore)

    def _added(self, spec: AttentionSpec, dtype: torch.dtype) -> list[Tensor | None]:
        """For each group what masks add to scores, made once for all layers of a window."""
        known = self._masks.get((spec.window, dtype))
        if known is None:
            reaches = [group.reaches[spec.window] for group in self.layout.groups]
            known = [None if reach.mask is None else added_mask(reach.mask, dtype) for reach in reaches]
            self._masks[spec.window, dtype] = known
        return known

    def _position_biases(self, spec: AttentionSpec, weight: Tensor) -> list[Tensor]:
        """For each group what distances add; layers that share a weight share these."""
        known = self._biases
        if known is None or known[0] is not weight or known[1] != spec:
            buckets = self._rotations.buckets(spec, weight.device)
            made = [position_bias(group.reaches[spec.window], spec, weight, buckets) for group in self.layout.groups]
            self._biases = known = (weight, spec, made)
        return known[2]

    def attend_memory(self, layer: LayerSpec, q: Tensor) -> Tensor:
        assert layer.memory is not None
        if self.memories is None:
            raise ArgumentError("each row of a model with an encoder must have a memory, got none. Encode its input.")
        tapped = layer.index in self.taps.attentions
        out, weights = attend_memories(self.memories, layer.memory, layer.index, q, tapped)
        if tapped:
            self.memory_attentions[layer.index] = weights
        return out

    def activate(self, x: Tensor, kind: Activation) -> Tensor:
        return _ACTIVATIONS[kind](x)

    def gated_mlp(self, x: Tensor, gate: Tensor, up: Tensor, kind: Activation) -> Tensor:
        return _ACTIVATIONS[kind](F.linear(x, gate)) * F.linear(x, up)

    def scored(self, x: Tensor) -> Tensor:
        return x if self.layout.scored is None else x.index_select(0, self.layout.scored)

    def softcap(self, x: Tensor, cap: float) -> Tensor:
        return cap * torch.tanh(x / cap)


def _by_row(groups: Sequence[Group], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The weights of each row of the batch, [heads, new, keys], from those of the groups, [R, heads, N, K]."""
    found = {}
    for group, part in zip(groups, weights, strict=True):
        for place, row in enumerate(group.order):
            found[row] = part[place, :, : group.counts[place], : group.lengths[place]]
    return tuple(found[row] for row in sorted(found))


_ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}
