"""The texts that tokenizers are compared on, and the two real tokenizers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from fabula.hub.open import open_checkpoint
from fabula.text.files import TokenizerFiles
from fabula.text.tokenizer import Tokenizer

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """12,000 texts: see tests/data/make_text.py."""
    return json.loads(gzip.decompress((DATA / "text.json.gz").read_bytes()))


@pytest.fixture(scope="session")
def smollm2_files(smollm2_gguf: Path) -> TokenizerFiles:
    files = open_checkpoint(smollm2_gguf).tokenizer
    assert files is not None
    return files


@pytest.fixture(scope="session")
def smollm2(smollm2_files: TokenizerFiles) -> Tokenizer:
    """Not to be changed by a test."""
    return Tokenizer.from_files(smollm2_files)


@pytest.fixture(scope="session")
def gemma(gemma_gguf: Path) -> Tokenizer:
    """Not to be changed by a test."""
    files = open_checkpoint(gemma_gguf).tokenizer
    assert files is not None
    return Tokenizer.from_files(files)
