"""One tiny model behind a pipeline of ours and one of transformers."""

import pytest

from fabula import pipeline


@pytest.fixture(scope="module")
def ours(folder):
    return pipeline("text-generation", model=folder)


@pytest.fixture(scope="module")
def theirs(folder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    return transformers.pipeline("text-generation", model=str(folder), device="cpu", dtype=torch.float32)
