"""What runs on a GPU gives what runs on a CPU."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_selections_on_a_gpu_equal_those_on_a_cpu():
    scores = torch.tensor(np.random.default_rng(0).normal(0, 3, (3, 4000)).astype(np.float32))
    ranks = np.array([[1], [50], [7]], dtype=np.int32)
    assert torch.equal(selections.kth_value(scores.cuda(), ranks).cpu(), selections.kth_value(scores, ranks))
    assert torch.equal(selections.top_mass(scores.cuda(), 0.1, 1).cpu(), selections.top_mass(scores, 0.1, 1))
    assert torch.equal(selections.survivors(scores.cuda())[1].cpu(), scores)
