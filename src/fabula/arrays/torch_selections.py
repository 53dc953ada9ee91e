"""Selections on PyTorch tensors: on a CPU NumPy's, on the tensor's own memory; on a GPU without waiting for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fabula.arrays import numpy_masses, numpy_selections

__all__ = ["kth_value", "mass_reach", "survivors", "top_k", "top_mass", "without"]

Array = torch.Tensor


def _on_host(x: Any) -> Any:
    """A tensor of a CPU as a NumPy array, of its memory where NumPy knows its type; anything else as it is."""
    if not isinstance(x, torch.Tensor):
        return x
    x = x.detach()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def top_k(x: Array, k: int) -> tuple[Array, Array]:
    """The k largest values of each row, falling, and their columns, int32; equal values in column order."""
    if x.device.type == "cpu":
        values, columns = (torch.from_numpy(part) for part in numpy_selections.top_k(_on_host(x), k))
        return values.to(x.dtype), columns
    values, columns = torch.sort(x, dim=-1, descending=True, stable=True)
    return values[..., :k], columns[..., :k].to(torch.int32)


def kth_value(x: Array, k: int | np.ndarray | Array) -> Array:
    """["R 1"]: the k-th largest value of each row of x ["R V"]; k in [1, V] is a number or Int["R 1"].

    On a GPU, ranks that are known on the host spare it a sort of everything.
    """
    if x.device.type == "cpu":
        return torch.from_numpy(numpy_selections.kth_value(_on_host(x), _on_host(k))).to(x.dtype)
    if isinstance(k, torch.Tensor):
        return torch.gather(torch.sort(x, dim=-1, descending=True).values, -1, k.long() - 1)
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
        return torch.from_numpy(numpy_masses.top_mass(*(_on_host(part) for part in (scores, tail, keep))))
    return top_mass_by_sorting(scores, tail, keep)


def top_mass_by_sorting(scores: Array, tail: Any, keep: Any) -> Array:
    """top_mass without a step whose length depends on the scores, so that nobody waits for the device."""
    falling, order = torch.sort(scores, dim=-1, descending=True, stable=True)
    values, order = falling.flip(-1), order.flip(-1)
    width = scores.shape[-1]
    kept = torch.cumsum(torch.softmax(values, dim=-1), dim=-1, dtype=torch.float64).to(scores.dtype) > tail
    kept |= width - torch.arange(width, device=scores.device) <= keep
    return torch.zeros_like(kept).scatter(-1, order, kept)


def mass_reach(x: Array, weights: Array, mass: Any) -> Array:
    """["R 1"]: the least value of each row of x ["R V"] up to which its weights ["R V"] reach `mass`, one or ["R 1"].

    The largest value where they do not.
    """
    if x.device.type == "cpu":
        return torch.from_numpy(numpy_masses.mass_reach(*(_on_host(part) for part in (x, weights, mass)))).to(x.dtype)
    return mass_reach_by_sorting(x, weights, mass)


def mass_reach_by_sorting(x: Array, weights: Array, mass: Any) -> Array:
    """mass_reach without a step whose length depends on the values, so that nobody waits for the device."""
    rising, order = torch.sort(x, dim=-1, stable=True)
    held = torch.cumsum(torch.gather(weights, -1, order), dim=-1, dtype=torch.float64).to(x.dtype)
    place = torch.sum(held < mass, dim=-1, keepdim=True).clamp(max=x.shape[-1] - 1)
    return torch.gather(rising, -1, place)


def survivors(scores: Array) -> tuple[Array, Array]:
    """Tokens Int["R K"], rising, and their scores: all that are above -inf; short rows end in tokens at -inf.

    On a CPU K is the largest count of a row; on a GPU, where counting would mean waiting, the vocabulary.
    """
    everything = torch.arange(scores.shape[-1], dtype=torch.int32, device=scores.device).expand(scores.shape)
    if scores.device.type != "cpu":
        return everything, scores
    tokens, values = numpy_selections.survivors(_on_host(scores))
    if tokens.shape[-1] == scores.shape[-1]:
        return everything, scores
    return torch.from_numpy(tokens), torch.from_numpy(values).to(scores.dtype)


def without(x: Array, removed: Array, value: float) -> Array:
    """x ["R V"] with one value where removed Bool["R V"] holds: `where` that no unforeseeable pattern slows down."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and not x.requires_grad:
        return torch.from_numpy(numpy_selections.without(x.numpy(), removed.numpy(), value))
    return torch.where(removed, value, x)
