"""Random configurations, rows and chunks: in PyTorch the logits are those of transformers."""

from __future__ import annotations

from random import Random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula.models.torch import TorchCausalLM  # noqa: E402
from tests.models.configurations import read_parts, write  # noqa: E402
from tests.models.random_configurations import random_case  # noqa: E402
from tests.models.steps import relative_error, stepped_logits  # noqa: E402


@pytest.mark.parametrize("seed", range(24), ids=lambda seed: random_case(seed).name)
def test_random_models_give_the_reference_logits_in_random_chunks(seed, tmp_path):
    case, random = random_case(seed), Random(seed)
    reference = write(case, tmp_path)
    model = TorchCausalLM.from_tensors(*read_parts(tmp_path))
    lengths = (random.randint(1, 80), random.randint(1, 12), random.randint(30, 70))
    rows = [[random.randrange(case.values["vocab_size"]) for _ in range(length)] for length in lengths]
    for row, ours in zip(rows, stepped_logits(model, rows, lambda missing: random.randint(1, 40), seed), strict=True):
        with torch.no_grad():
            assert relative_error(ours, reference(torch.tensor([row])).logits[0]) < 1e-5
