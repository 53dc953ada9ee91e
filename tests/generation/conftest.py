"""The tiny model that most of these tests generate with: its files, in both backends, and as transformers reads it."""

import pytest

from fabula import AutoModelForCausalLM
from fabula.testing.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=["native", "torch"])
def model(request, folder):
    return AutoModelForCausalLM.from_pretrained(folder, backend=request.param)


@pytest.fixture(scope="module")
def reference(folder):
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
