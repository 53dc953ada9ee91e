"""A tiny model on the disk, and a way to run the command line without a process."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from fabula.cli.main import main
from fabula.testing.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model directory."""
    return str(write_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """run(*words, typed="") -> code, out, err."""

    def command(*words: str, typed: str = "") -> SimpleNamespace:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed.encode()), encoding="utf-8"))
        code = main(words)
        output = capsys.readouterr()
        return SimpleNamespace(code=code, out=output.out, err=output.err)

    return command
