"""The tiny model that most of these tests generate with: its files, in both backends, and as transformers reads it."""

import pytest

from fabula import AutoModelForCausalLM


@pytest.fixture(scope="module", params=["native", "torch"])
def model(request, folder):
    return AutoModelForCausalLM.from_pretrained(folder, backend=request.param)


@pytest.fixture(scope="module")
def reference(folder):
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
