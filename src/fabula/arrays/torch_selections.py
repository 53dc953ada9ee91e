"""Selections on PyTorch tensors: on a CPU NumPy's, on the tensor's own memory; on a GPU without waiting for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fabula.arrays import numpy_selections as host

__all__ = ["kth_value", "survivors", "top_k", "top_mass"]

Array = torch.Tensor


def top_k(x: Array, k: int) -> tuple[Array, Array]:
    """The k largest values of each row, falling, and their columns, int32; equal values in column order."""
    if x.device.type == "cpu":
        values, columns = (torch.from_numpy(part) for part in host.top_k(x.detach().numpy(), k))
        return values, columns
    values, columns = torch.sort(x, dim=-1, descending=True, stable=True)
    return values[..., :k], columns[..., :k].to(torch.int32)


def kth_value(x: Array, k: int | np.ndarray) -> Array:
    """["R 1"]: the k-th largest value of each row of x ["R V"]; k in [1, V] is a number or, on the host, Int["R 1"]."""
    if isinstance(k, int):
        return torch.topk(x, k, dim=-1).values[..., -1:]
    highest = torch.topk(x, int(k.max()), dim=-1).values
    return torch.gather(highest, -1, torch.as_tensor(k - 1, dtype=torch.int64, device=x.device))


def top_mass(scores: Array, tail: Any, keep: Any) -> Array:
    """Bool["R V"]: the likeliest tokens of each row, without the tail that holds little.

    A token is out if it and all that are less likely hold at most `tail` of the mass (of equally likely ones the last
    count as less likely), unless it is among the likeliest `keep`. Both are numbers or ["R 1"]. A negative tail keeps
    everything.
    """
    if scores.device.type == "cpu":
        limits = [part.numpy() if isinstance(part, torch.Tensor) else part for part in (tail, keep)]
        return torch.from_numpy(host.top_mass(scores.detach().numpy(), *limits))
    return top_mass_by_sorting(scores, tail, keep)


def top_mass_by_sorting(scores: Array, tail: Any, keep: Any) -> Array:
    """top_mass without a step whose length depends on the scores, so that nobody waits for the device."""
    falling, order = torch.sort(scores, dim=-1, descending=True, stable=True)
    values, order = falling.flip(-1), order.flip(-1)
    width = scores.shape[-1]
    kept = torch.cumsum(torch.softmax(values, dim=-1), dim=-1, dtype=torch.float64).to(scores.dtype) > tail
    kept |= width - torch.arange(width, device=scores.device) <= keep
    return torch.zeros_like(kept).scatter(-1, order, kept)


def survivors(scores: Array) -> tuple[Array, Array]:
    """Tokens Int["R K"], rising, and their scores: all that are above -inf; short rows end in tokens at -inf.

    On a CPU K is the largest count of a row; on a GPU, where counting would mean waiting, the vocabulary.
    """
    everything = torch.arange(scores.shape[-1], dtype=torch.int32, device=scores.device).expand(scores.shape)
    if scores.device.type != "cpu":
        return everything, scores
    tokens, values = host.survivors(scores.detach().numpy())
    if tokens.shape[-1] == scores.shape[-1]:
        return everything, scores
    return torch.from_numpy(tokens), torch.from_numpy(values)
