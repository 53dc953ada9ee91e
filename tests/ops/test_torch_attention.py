"""Attention over blocks equals attention computed row by row, whatever rows a step mixes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fabula.cache.blocks import BLOCK, blocks_for  # noqa: E402
from fabula.cache.torch import TorchCache  # noqa: E402
from fabula.ops.position_buckets import bucket_table  # noqa: E402
from fabula.ops.protocol import NO_TAPS, Batch, Taps  # noqa: E402
from fabula.ops.specs import AttentionSpec, BiasSpec, LayerSpec, RopeSpec  # noqa: E402
from fabula.ops.torch import TorchOps  # noqa: E402
from fabula.ops.torch_layout import build_layout  # noqa: E402

SPECS = {
    "all heads alike": AttentionSpec(4, 4, 8, 8**-0.5),
    "shared keys": AttentionSpec(6, 2, 8, 0.3),
    "one key head": AttentionSpec(4, 1, 16, 0.25),
    "a window": AttentionSpec(4, 2, 8, 0.3, window=9),
    "a window of blocks": AttentionSpec(2, 2, 8, 0.3, window=BLOCK + 8),
    "a window of one": AttentionSpec(2, 1, 8, 0.3, window=1),
    "a cap": AttentionSpec(4, 2, 8, 0.3, softcap=2.0),
    "a cap and a window": AttentionSpec(4, 2, 8, 0.3, window=40, softcap=2.0),
    "distances": AttentionSpec(3, 3, 8, 1.0, bias=BiasSpec(8, 20)),
    "distances and shared keys": AttentionSpec(4, 2, 8, 1.0, bias=BiasSpec(32, 128)),
    "distances, shared keys and a window": AttentionSpec(4, 2, 8, 1.0, window=9, bias=BiasSpec(32, 128)),
}
BOTH_WAYS = {
    "both ways": AttentionSpec(4, 2, 8, 0.3, causal=False),
    "distances both ways": AttentionSpec(4, 4, 8, 1.0, causal=False, bias=BiasSpec(8, 20)),
    "distances both ways and shared keys": AttentionSpec(4, 2, 8, 1.0, causal=False, bias=BiasSpec(32, 128)),
}
# (positions in the cache, new positions): fresh prompts, chunks of prompts, single tokens, and nothing to do.
MIXTURES = {
    "fresh prompts": [(0, 5), (0, 5)],
    "ragged fresh prompts": [(0, 40), (0, 33), (0, 1), (0, 7)],
    "single tokens": [(3, 1), (70, 1), (31, 1), (32, 1)],
    "chunks": [(64, 20), (5, 37), (33, 31)],
    "everything": [(0, 50), (12, 1), (0, 1), (90, 3), (40, 1), (31, 2), (0, 45)],
    "a row with nothing to do": [(8, 0), (0, 4), (40, 1)],
}


def expected_row(q, k, v, spec, first):
    """The textbook: q [n, H, E] against k and v [n + first, KV, E], in float64."""
    shared = spec.heads // spec.kv_heads
    k, v = np.repeat(k, shared, 1), np.repeat(v, shared, 1)
    scores = np.einsum("qhe,khe->hqk", q, k) * spec.scale
    if spec.softcap is not None:
        scores = spec.softcap * np.tanh(scores / spec.softcap)
    queries, keys = first + np.arange(len(q))[:, None], np.arange(len(k))
    if spec.bias is not None:
        far = spec.bias.max_distance
        buckets = bucket_table(spec.bias, spec.causal)[np.clip(keys - queries, -far, far) + far]
        scores = scores + bias_weight(spec)[buckets].transpose(2, 0, 1)
    hidden = (keys > queries) & spec.causal | (keys <= queries - (spec.window or 1 << 30))
    scores = np.where(hidden, -np.inf, scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hqk,khe->qhe", weights, v).reshape(len(q), spec.heads * spec.head_dim), weights


def bias_weight(spec):
    """[buckets, heads]: the same for the same spec."""
    return np.random.default_rng(7).standard_normal((spec.bias.buckets, spec.heads)).astype(np.float32)


def arrangement(mixture, spec, seed=0):
    """A batch, a cache that holds the rows' earlier positions and NaN in other blocks, and all of q, k, v by row."""
    random = np.random.default_rng(seed)
    ends = [first + count for first, count in mixture]
    needed = [max(1, blocks_for(end)) for end in ends]
    free = random.permutation(sum(needed) + 3).tolist()
    tables = np.zeros((len(mixture), max(needed)), np.int32)
    cache = TorchCache([(spec.kv_heads, spec.head_dim)], sum(needed) + 3, torch.float32, "cpu")
    cache.keys[0].fill_(torch.nan)
    cache.values[0].fill_(torch.nan)
    rows = []
    for row, ((first, count), end) in enumerate(zip(mixture, ends, strict=True)):
        tables[row, : needed[row]] = [free.pop() for _ in range(needed[row])]
        q = random.standard_normal((count, spec.heads, spec.head_dim)).astype(np.float32)
        k, v = random.standard_normal((2, end, spec.kv_heads, spec.head_dim)).astype(np.float32)
        rows.append((q, k, v, first))
        cache.clear(0, torch.tensor(tables[row, : blocks_for(first)], dtype=torch.int64))
        for position in range(first):
            block, place = tables[row, position // BLOCK], position % BLOCK
            cache.keys[0][block, place], cache.values[0][block, place] = (
                torch.tensor(k[position]),
                torch.tensor(v[position]),
            )
    counts = [count for _, count in mixture]
    total = sum(counts)
    batch = Batch(
        np.zeros(total, np.int32),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        np.array([first for first, _ in mixture], np.int32),
        tables,
        np.arange(total, dtype=np.int32),
    )
    return batch, cache, rows


def attend(batch, cache, rows, spec, taps=NO_TAPS, dtype=torch.float32):
    ops = TorchOps(build_layout(batch, (spec.window,), cache is not None, "cpu", spec.causal), cache, taps)
    q, k, v = (
        torch.tensor(np.concatenate([row[part][-len(row[0]) :] if len(row[0]) else row[part][:0] for row in rows]))
        .flatten(1)
        .to(dtype)
        for part in range(3)
    )
    bias = None if spec.bias is None else torch.from_numpy(bias_weight(spec)).to(dtype)
    return ops.attend(LayerSpec(0, spec), q, k, v, bias), ops


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_any_mixture_of_rows_attends_as_each_row_alone(spec, mixture):
    batch, cache, rows = arrangement(mixture, spec)
    out, _ = attend(batch, cache, rows, spec)
    expected = np.concatenate([expected_row(*row[:3], spec, row[3])[0] for row in rows])
    assert np.abs(out.numpy() - expected).max() < 2e-6


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_tapped_weights_are_those_of_each_row(spec):
    mixture = [(0, 12), (40, 3), (0, 11), (7, 1)]
    batch, cache, rows = arrangement(mixture, replace(spec, window=None))
    spec = replace(spec, window=None)
    out, ops = attend(batch, cache, rows, spec, Taps(attentions=(0,)))
    for row, weights, (first, count) in zip(rows, ops.attentions[0], mixture, strict=True):
        assert weights.shape == (spec.heads, count, first + count)
        assert np.abs(weights.numpy() - expected_row(*row[:3], spec, first)[1]).max() < 2e-6
    assert out.shape == (27, spec.heads * spec.head_dim)


def test_without_a_cache_gradients_flow_to_all_three():
    spec = AttentionSpec(4, 2, 8, 0.3, window=6)
    batch, _, _ = arrangement([(0, 9), (0, 4), (0, 9)], spec)
    ops = TorchOps(build_layout(batch, (6,), False, "cpu"))
    q = torch.randn(22, 32, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(22, 16, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda *x: ops.attend(LayerSpec(0, spec), *x), (q, k, v))


def test_every_position_is_written_where_the_table_says():
    spec = AttentionSpec(2, 2, 8, 0.3)
    batch, cache, rows = arrangement([(30, 5), (0, 3)], spec)
    before = cache.keys[0].clone()
    attend(batch, cache, rows, spec)
    written = set()
    for row, (first, count) in enumerate([(30, 5), (0, 3)]):
        for position in range(first, first + count):
            block, place = batch.tables[row, position // BLOCK], position % BLOCK
            assert np.array_equal(cache.keys[0][block, place], rows[row][1][position])
            written.add((int(block), place))
    same = (cache.keys[0] == before) | (cache.keys[0].isnan() & before.isnan()) | (cache.keys[0] == 0)
    assert {tuple(place) for place in (~same).any(-1).any(-1).nonzero().tolist()} == written


@pytest.mark.parametrize("spec", BOTH_WAYS.values(), ids=BOTH_WAYS)
@pytest.mark.parametrize("mixture", [[(0, 5), (0, 5)], [(0, 40), (0, 33), (0, 1), (0, 7)]], ids=["alike", "ragged"])
def test_rows_attend_both_ways_within_themselves(spec, mixture):
    batch, _, rows = arrangement(mixture, spec)
    expected = [expected_row(*row[:3], spec, 0) for row in rows]
    out, ops = attend(batch, None, rows, spec, Taps(attentions=(0,)))
    fused, _ = attend(batch, None, rows, spec)
    for found in (out, fused):
        assert np.abs(found.numpy() - np.concatenate([each for each, _ in expected])).max() < 2e-6
    for weights, (_, reference) in zip(ops.attentions[0], expected, strict=True):
        assert np.abs(weights.numpy() - reference).max() < 2e-6


def test_layers_that_share_a_bias_share_what_distances_add():
    spec = SPECS["distances"]
    batch, cache, rows = arrangement([(0, 5), (3, 1)], spec)
    _, ops = attend(batch, cache, rows, spec)
    weight, _, made = ops._biases
    groups = ops.layout.groups
    assert ops._position_biases(spec, weight, weight, groups) is made
    assert ops._position_biases(spec, weight, weight.clone(), groups) is not made


def test_a_rotation_may_leave_the_rest_of_a_head():
    batch, _, _ = arrangement([(0, 6)], SPECS["all heads alike"])
    ops = TorchOps(build_layout(batch, (None,), False, "cpu"))
    x = torch.randn(6, 32)
    turned = ops.rope(x, RopeSpec(8, (1.0, 0.1), 1.0)).view(6, 4, 8)
    assert torch.equal(turned[..., 4:], x.view(6, 4, 8)[..., 4:])
    assert torch.allclose(turned[..., :4].norm(dim=-1), x.view(6, 4, 8)[..., :4].norm(dim=-1), atol=1e-5)


def test_one_copy_moves_many_blocks_at_once_and_growth_keeps_them():
    cache = TorchCache([(1, 2), (2, 3)], 4, torch.float32, "cpu")
    for tensor in (*cache.keys, *cache.values):
        tensor.normal_()
    before = [tensor.clone() for tensor in (*cache.keys, *cache.values)]
    cache.copy([0, 1], [1, 0])
    cache.grow(7)
    assert cache.blocks == 7
    assert cache.nbytes == 2 * 7 * BLOCK * (2 + 6) * 4
    for tensor, old in zip((*cache.keys, *cache.values), before, strict=True):
        assert torch.equal(tensor[:4], old[[1, 0, 2, 3]])
        assert not tensor[4:].any()
