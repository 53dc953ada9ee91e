"""The kernels' sampler on the logits of a model in PyTorch, which lie in the same memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fabula.decoding.plain_rows import Sampler
from fabula.kernels.compiled import ThreadPool
from fabula.kernels.library import load_library
from fabula.kernels.sampling import RowChoice, sample_tokens


def torch_sampler() -> Sampler | None:
    """From logits Float32["R V"] on a CPU to tokens Int["R"]; None where the kernels are not built."""
    library = load_library()
    if library is None:
        return None
    pool = ThreadPool(library, torch.get_num_threads())

    def choose(logits: torch.Tensor, rows: Sequence[RowChoice]) -> torch.Tensor:
        return torch.from_numpy(sample_tokens(pool, logits.contiguous().numpy(), rows))

    return choose
