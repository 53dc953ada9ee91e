"""Processors are the same in every framework: theirs are tried in TensorFlow too.

JAX, which compiles each operation by itself for each shape, has them where they are compiled into loops.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest


@pytest.fixture(params=["numpy", "torch", "tensorflow"])
def xp(request: pytest.FixtureRequest) -> ModuleType:
    """The array functions of one framework."""
    pytest.importorskip(request.param)
    return import_module(f"fabula.arrays.{request.param}")
