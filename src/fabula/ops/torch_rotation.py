"""Cosines and sines of positions in PyTorch, and the buckets of distances, kept from step to step."""

from __future__ import annotations

import torch

from fabula.ops.position_buckets import bucket_table
from fabula.ops.specs import AttentionSpec, BiasSpec, RopeSpec

MOST = 1 << 14  # positions that are kept; those beyond are computed at each step


class Rotations:
    """What positions turn heads by, or add to scores; a model's, since every step asks for the same."""

    def __init__(self) -> None:
        self._tables: dict[tuple[RopeSpec, torch.dtype, torch.device], torch.Tensor] = {}
        self._frequencies: dict[tuple[RopeSpec, torch.device], torch.Tensor] = {}  # on a GPU already when steps go on
        self._buckets: dict[tuple[BiasSpec, bool, torch.device], torch.Tensor] = {}

    def at(
        self, rope: RopeSpec, dtype: torch.dtype, positions: torch.Tensor, end: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines [T, 1, 2 * frequencies] at positions Int["T"], all below `end`; None: who knows.

        The sines of a head's first half are negative: they go with the second half's features.
        """
        if end is None or end > MOST:
            both = self._turned(rope, dtype, positions)
        else:
            key = (rope, dtype, positions.device)
            table = self._tables.get(key)
            if table is None or len(table) < end:
                with torch.inference_mode(False):  # steps that are trained read it too
                    every = torch.arange(min(MOST, max(256, 2 * end)), device=positions.device)
                    self._tables[key] = table = self._turned(rope, dtype, every)
            both = table.index_select(0, positions)
        return both[:, :1], both[:, 1:]

    def buckets(self, spec: AttentionSpec, device: torch.device) -> torch.Tensor:
        """Int["2 * max_distance + 1"]: the bucket of each distance of a layer that has them, on a device."""
        assert spec.bias is not None
        key = (spec.bias, spec.causal, device)
        if key not in self._buckets:
            with torch.inference_mode(False):
                self._buckets[key] = torch.from_numpy(bucket_table(spec.bias, spec.causal)).to(device)
        return self._buckets[key]

    def _turned(self, rope: RopeSpec, dtype: torch.dtype, positions: torch.Tensor) -> torch.Tensor:
        """Float["T 2 frequencies*2"]: the cosines, then the sines, at positions Int["T"]."""
        key = (rope, positions.device)
        if key not in self._frequencies:
            with torch.inference_mode(False):
                known = torch.tensor(rope.inverse_frequencies, dtype=torch.float32, device=positions.device)
            self._frequencies[key] = known
        angles = positions.float()[:, None] * self._frequencies[key]
        cosine, sine = angles.cos() * rope.attention_factor, angles.sin() * rope.attention_factor
        return torch.stack([torch.cat([cosine, cosine], -1), torch.cat([-sine, sine], -1)], 1).to(dtype)
