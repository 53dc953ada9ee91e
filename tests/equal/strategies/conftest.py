"""The small models' files, written once, and each of them in either backend."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fabula import AutoModelForCausalLM
from tests.equal.strategies.tiny import FAMILIES, write_tiny


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> its model's directory."""
    place = tmp_path_factory.mktemp("tiny")
    return {family: write_tiny(family, place / family) for family in FAMILIES}


@pytest.fixture(scope="session")
def tiny(folders: dict[str, Path]) -> Callable[[str, str], Any]:
    """(family, backend) -> the model in float32."""

    @cache
    def load(family: str, backend: str) -> Any:
        bound = {"threads": 1} if backend == "native" else {}
        return AutoModelForCausalLM.from_pretrained(folders[family], dtype="float32", backend=backend, **bound)

    return load


@pytest.fixture(scope="session")
def theirs(folders: dict[str, Path]) -> Callable[[str], Any]:
    """family -> the same model in transformers, in float32 and eval mode."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    load = transformers.AutoModelForCausalLM.from_pretrained
    return cache(lambda family: load(folders[family], dtype=torch.float32).eval())
