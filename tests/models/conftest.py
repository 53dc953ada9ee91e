"""Each small model, written once: what transformers computes, and where its files are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabula.models.families.family import Family
from fabula.quant.formats import StoredTensor
from tests.equal.frameworks.doors import DOORS, REFERENCE, Door
from tests.models import configurations
from tests.models.configurations import CASES, Case, read_parts
from tests.models.encoders import cases as seq2seq_cases


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


@pytest.fixture(scope="session")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Written]:
    """name -> a small random model, with or without an encoder, which nobody changes."""
    pytest.importorskip("transformers")

    @cache
    def written(name: str) -> Written:
        kind = configurations if any(case.name == name for case in CASES) else seq2seq_cases
        case, directory = next(case for case in kind.CASES if case.name == name), tmp_path_factory.mktemp(name)
        return Written(case, kind.write(case, directory), directory)

    return written


@pytest.fixture(scope="session")
def parts(writing: Callable[[str], Written]) -> Callable[[str], tuple[Family, Mapping[str, StoredTensor]]]:
    """name -> what from_tensors() takes of a small random model."""
    return lambda name: read_parts(writing(name).directory)


@pytest.fixture(scope="module", params=CASES, ids=str)
def written(request: pytest.FixtureRequest, writing: Callable[[str], Written]) -> Written:
    """A small random model of each configuration."""
    return writing(request.param.name)


@pytest.fixture(params=["jax", "tensorflow"])
def door(request: pytest.FixtureRequest) -> Door:
    """A framework that compiles; tests skip where it is absent."""
    DOORS[request.param].require()
    return DOORS[request.param]


@pytest.fixture
def both(door: Door, writing: Callable[[str], Written]) -> Callable[[str], tuple[Any, Any]]:
    """name -> a small model in the framework, and the same in PyTorch."""

    def load(name: str) -> tuple[Any, Any]:
        directory, encodes = writing(name).directory, name in {case.name for case in seq2seq_cases.CASES}
        model = door.load(directory, encodes)
        if door.backend == "tensorflow":
            model.programs.xla = False  # of single steps; bursts are compiled
        return model, REFERENCE.load(directory, encodes)

    return load
