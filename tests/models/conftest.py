"""Each small model, once a module: what transformers computes, and where its files are."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.configurations import CASES, Case, write


@dataclass(frozen=True)
class Written:
    """A model of transformers and its files."""

    case: Case
    reference: Any  # in eval mode, float32
    directory: Path

    def logits(self, tokens: list[int]) -> np.ndarray:
        """Float["L V"]: what transformers gives for one row without padding."""
        import torch

        with torch.no_grad():
            return self.reference(torch.tensor([tokens])).logits[0].numpy()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small models are faster, and tests that run side by side do not wait for each other."""
    if find_spec("torch"):
        import_module("torch").set_num_threads(1)


@pytest.fixture(scope="module", params=CASES, ids=str)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A small random model of each configuration."""
    pytest.importorskip("transformers")
    directory = tmp_path_factory.mktemp("model")
    return Written(request.param, write(request.param, directory), directory)
