"""PyTorch, with which the other frameworks are compared, uses one thread: for models this small more only wait."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small models are faster, and tests that run side by side do not wait for each other."""
    pytest.importorskip("torch").set_num_threads(1)
