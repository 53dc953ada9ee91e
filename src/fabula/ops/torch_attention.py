"""Attention over rectangles in PyTorch: the fused kernel, and the plain one that shows its weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fabula.cache.torch import TorchCache
from fabula.ops.specs import AttentionSpec
from fabula.ops.torch_layout import Group, Reach


def attend_group(
    group: Group,
    spec: AttentionSpec,
    layer: int,
    projected: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    cache: TorchCache | None,
    tapped: bool,
    bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What a group's queries gather, [R*N, heads * head_dim], and the weights [R, heads, N, K] if they are tapped.

    `projected`: the step's q, k and v [T, heads, head_dim]; k and v are in the cache already where there is one.
    `bias`: what `position_bias` or `added_mask` made for this group; None: all is seen, or if causal up to its own.
    """
    reach = group.reaches[spec.window]
    q = _rectangle(projected[0], group)
    if reach.tables is not None:
        assert cache is not None
        k, v = cache.read(layer, reach.tables)
    elif reach.slots is not None:
        assert cache is not None
        k, v = cache.read_at(layer, reach.slots)
    else:
        k, v = _rectangle(projected[1], group), _rectangle(projected[2], group)
    out, weights = attend_rectangle(q, k, v, spec, bias, tapped)
    return out.reshape(group.rows * group.width, -1), weights


def attend_rectangle(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spec: AttentionSpec, mask: torch.Tensor | None, tapped: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What q [R, N, H, E] gathers from k and v [R, K, KV, E]: [R, N, H, E], and the weights [R, H, N, K] if tapped.

    `mask` [R|1, H|1, N|1, K]: which query sees which key, or what its score gains; None: all, or up to its own.
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if tapped or spec.softcap is not None:
        out, weights = plain_attention(q, k, v, spec, mask)
    else:
        out, weights = fused_attention(q, k, v, spec, mask), None
    return out.transpose(1, 2), weights if tapped else None


def added_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What scores gain, Float["R|1 1 N K"], from which query sees which key, Bool["R|1 N K"]."""
    unseen = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))
    return unseen[:, None]


def position_bias(reach: Reach, spec: AttentionSpec, weight: torch.Tensor, buckets: torch.Tensor) -> torch.Tensor:
    """What distances add to scores, Float["R|1 H N K"], and minus infinity where a query does not see a key.

    `weight` [buckets, heads]: the number of each bucket; `buckets` Int["2 * max_distance + 1"]: that of each distance.
    """
    assert spec.bias is not None
    far = spec.bias.max_distance
    distances = reach.keys[:, None, :] - reach.queries[:, :, None]
    values = F.embedding(buckets[distances.clamp(-far, far) + far], weight).permute(0, 3, 1, 2)
    mask = reach.mask
    if mask is None and spec.causal:
        mask = distances <= 0
    return values if mask is None else values.masked_fill(~mask[:, None], float("-inf"))


def _rectangle(x: torch.Tensor, group: Group) -> torch.Tensor:
    """[T, heads, head_dim] -> [R, N, heads, head_dim]."""
    chosen = x if group.index is None else x.index_select(0, group.index)
    return chosen.view(group.rows, group.width, *x.shape[1:])


def fused_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spec: AttentionSpec, mask: torch.Tensor | None
) -> torch.Tensor:
    """softmax(scale * q k^T) v with q [R, H, N, E] and k, v [R, KV, K, E]: [R, H, N, E]."""
    rows, heads, width, features = q.shape
    shared = heads // spec.kv_heads
    if mask is None:
        causal = spec.causal and width > 1
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=spec.scale, enable_gqa=shared > 1)
    if shared > 1:  # the queries that share a key head stand side by side, so that keys need no copies
        q = q.reshape(rows, spec.kv_heads, shared * width, features)
        if mask.shape[1] > 1:
            mask = mask.expand(-1, -1, width, -1).reshape(mask.shape[0], spec.kv_heads, shared * width, -1)
        elif mask.shape[2] > 1:
            mask = mask.repeat(1, 1, shared, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=spec.scale).reshape(
        rows, heads, width, features
    )


def plain_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spec: AttentionSpec, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same step by step, with the cap on scores if there is one; and the weights [R, H, N, K]."""
    shared = q.shape[1] // spec.kv_heads
    k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    scores = q @ k.transpose(-1, -2) * spec.scale
    if spec.softcap is not None:
        scores = spec.softcap * torch.tanh(scores / spec.softcap)
    if mask is None and spec.causal:
        mask = torch.ones(1, 1, q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype)
    return weights @ v, weights
