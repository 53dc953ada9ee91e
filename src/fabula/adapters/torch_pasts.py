"""What modules keep between two calls, as tensors: which rows and columns of it are kept, moved or joined."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch


class Leaf(NamedTuple):
    """A tensor in a past, and the axes that are known of it."""

    tensor: torch.Tensor
    rows: int
    columns: int | None  # None: of what an encoder made, or a state
    memory: int | None = None  # positions of what an encoder made


def has_columns(past: Any, rows: int, width: int) -> bool:
    """Whether every tensor of the past is known to have a column for each of the rectangle's, the encoder's aside.

    A tuple in which another axis could be the columns is not known: rows of it are computed again.
    """
    leaves = _leaves(past)
    if leaves is None or any(leaf.tensor.shape[leaf.rows] != rows for leaf in leaves):
        return False
    own = [leaf.tensor.shape for leaf in leaves if leaf.columns is not None]
    certain = not isinstance(past, (tuple, list)) or all(shape[1] != shape[2] for shape in own)
    return certain and all(shape[2] == width for shape in own)


def select(past: Any, rows: Sequence[int]) -> Any:
    """A past of these rows, which may repeat, of one that has no columns; None where it says of no way to do so."""
    if not hasattr(past, "reorder_cache"):
        return None
    selected = copy.deepcopy(past)
    selected.reorder_cache(torch.tensor(list(rows)))
    return selected


def align(past: Any, rows: Sequence[int], ends: Sequence[int], width: int) -> Any:
    """A past of these rows whose last `width` columns are those before each row's end; others become padding."""
    leaves = _leaves(past)
    assert leaves is not None
    return _rebuilt(past, [_aligned(leaf, _index(leaves, rows), ends, width) for leaf in leaves])


def join(pasts: Sequence[Any]) -> Any:
    """One past of the rows of several, in order. Columns are right-aligned, an encoder's positions left-aligned."""
    if len(pasts) == 1:
        return pasts[0]
    parts = [_leaves(past) for past in pasts]
    joined = []
    for leaves in zip(*(part for part in parts if part is not None), strict=True):
        tensors = _same_width([leaf.tensor for leaf in leaves], leaves[0].columns, left=True)
        tensors = _same_width(tensors, leaves[0].memory, left=False)
        joined.append(torch.cat(tensors, leaves[0].rows))
    return _rebuilt(pasts[0], joined)


def _index(leaves: Sequence[Leaf], rows: Sequence[int]) -> torch.Tensor:
    return torch.tensor(list(rows), device=leaves[0].tensor.device)


def _aligned(leaf: Leaf, rows: torch.Tensor, ends: Sequence[int], width: int) -> torch.Tensor:
    tensor = leaf.tensor.index_select(leaf.rows, rows)
    if leaf.columns is None:
        return tensor
    if len(set(ends)) == 1 and ends[0] >= width:
        return tensor.narrow(leaf.columns, ends[0] - width, width)
    columns = torch.arange(-width, 0)[None] + torch.tensor(list(ends))[:, None]
    shape = [1] * tensor.ndim
    shape[leaf.rows], shape[leaf.columns] = len(ends), width
    whole = list(tensor.shape)
    whole[leaf.columns] = width
    index = columns.clamp(min=0)
    index = (index if leaf.rows < leaf.columns else index.T).reshape(shape).to(tensor.device)
    return tensor.gather(leaf.columns, index.expand(whole))


def _same_width(tensors: list[torch.Tensor], axis: int | None, left: bool) -> list[torch.Tensor]:
    """The tensors with zeros before (or behind) what they hold along an axis, up to the widest."""
    if axis is None:
        return tensors
    width = max(tensor.shape[axis] for tensor in tensors)
    same = []
    for tensor in tensors:
        shape = list(tensor.shape)
        shape[axis] = width - shape[axis]
        zeros = tensor.new_zeros(shape)
        same.append(torch.cat([zeros, tensor] if left else [tensor, zeros], axis))
    return same


def _leaves(past: Any) -> list[Leaf] | None:
    """The tensors of a past whose axes are known: a tuple of (keys, values), or a cache of transformers of full length.

    None for every other: a recurrent state, a sliding window, a past of somebody's own.
    """
    if isinstance(past, (tuple, list)):
        return _pairs(past)
    halves = _halves(past)
    if halves is None:
        return None
    own, crossed = halves
    leaves = [Leaf(x, 0, 2) for layer in own.layers if layer.is_initialized for x in (layer.keys, layer.values)]
    if crossed is not None:
        memory = (x for layer in crossed.layers if layer.is_initialized for x in (layer.keys, layer.values))
        leaves += [Leaf(x, 0, None, 2) for x in memory]
    return leaves or None


def _pairs(past: Sequence[Any]) -> list[Leaf] | None:
    """Keys and values [rows, heads, columns, features], a pair a layer, all of one number of rows and of columns."""
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in past):
        return None
    tensors = [tensor for pair in past for tensor in pair]
    if not all(isinstance(tensor, torch.Tensor) and tensor.ndim == 4 for tensor in tensors):
        return None
    if len({(tensor.shape[0], tensor.shape[2]) for tensor in tensors}) != 1:
        return None
    return [Leaf(tensor, 0, 2) for tensor in tensors]


def _halves(past: Any) -> tuple[Any, Any] | None:
    """The cache of a decoder's own keys and values, and that of its encoder's, if every layer is of full length."""
    own = getattr(past, "self_attention_cache", past)
    crossed = getattr(past, "cross_attention_cache", None)
    for cache in (own, crossed):
        if cache is None:
            continue
        layers = getattr(cache, "layers", None)
        if layers is None or any(type(layer).__name__ != "DynamicLayer" for layer in layers):
            return None
    return own, crossed


def _rebuilt(past: Any, tensors: Sequence[torch.Tensor]) -> Any:
    """The same past with other tensors in place of its leaves."""
    left = iter(tensors)
    if isinstance(past, (tuple, list)):
        return tuple((next(left), next(left)) for _ in past)
    halves = _halves(past)
    assert halves is not None
    own, crossed = (_copied(cache, left) for cache in halves)
    if crossed is None:
        return own
    rebuilt = copy.copy(past)
    rebuilt.self_attention_cache, rebuilt.cross_attention_cache = own, crossed
    rebuilt.is_updated = dict(past.is_updated)
    return rebuilt


def _copied(cache: Any, tensors: Any) -> Any:
    """A cache of the same kind that holds the next of the tensors."""
    if cache is None:
        return None
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in copied.layers:
        if layer.is_initialized:
            layer.keys, layer.values = next(tensors), next(tensors)
    return copied
