"""What runs on a GPU gives what runs on a CPU."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fabula.arrays import torch as functions  # noqa: E402  # needs torch
from fabula.arrays import torch_selections as selections  # noqa: E402  # needs torch


@pytest.mark.parametrize("tail", [-1.0, 0.0, 0.1, 0.6, 0.95])
@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("vocabulary", [1, 2, 60, 4000])
def test_top_mass_by_sorting_keeps_the_tokens_that_the_host_keeps(vocabulary, keep, tail):
    scores = torch.tensor(np.random.default_rng(0).normal(0, 3, (3, vocabulary)).astype(np.float32))
    scores[1, vocabulary // 2 + 1 :] = -torch.inf
    sorted_out = selections.top_mass_by_sorting(scores, tail, keep)
    finite = scores > -torch.inf
    assert torch.equal(sorted_out & finite, selections.top_mass(scores, tail, keep) & finite)


@pytest.mark.parametrize("mass", [0.01, 0.5, 0.9, 1.5])
@pytest.mark.parametrize("vocabulary", [1, 60, 4000])
def test_mass_reach_by_sorting_reaches_what_the_host_reaches(vocabulary, mass):
    x = torch.tensor(np.random.default_rng(0).normal(0, 3, (3, vocabulary)).astype(np.float32))
    weights = torch.softmax(-x, dim=-1)
    assert torch.equal(selections.mass_reach_by_sorting(x, weights, mass), selections.mass_reach(x, weights, mass))


def test_setting_without_waiting_sets_what_the_host_sets():
    x = torch.tensor(np.random.default_rng(0).normal(0, 3, (3, 9)).astype(np.float32))
    columns = torch.tensor([[1, 5, 99], [2, 3, 4], [-1, 0, 8]], dtype=torch.int32)
    chosen = torch.tensor([[True, False, False], [True, True, True], [False, False, False]])
    for values in (-torch.inf, x[:, :3] * 2):
        expected = functions.scatter_where(x, columns, chosen, values)
        assert torch.equal(functions._scatter_where_unwaited(x, columns, chosen, values), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_selections_on_a_gpu_equal_those_on_a_cpu():
    scores = torch.tensor(np.random.default_rng(0).normal(0, 3, (3, 4000)).astype(np.float32))
    ranks = np.array([[1], [50], [7]], dtype=np.int32)
    assert torch.equal(selections.kth_value(scores.cuda(), ranks).cpu(), selections.kth_value(scores, ranks))
    assert torch.equal(selections.top_mass(scores.cuda(), 0.1, 1).cpu(), selections.top_mass(scores, 0.1, 1))
    assert torch.equal(selections.survivors(scores.cuda())[1].cpu(), scores)
