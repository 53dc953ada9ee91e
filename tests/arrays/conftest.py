"""The installed frameworks, as array modules: every array test runs on each of them."""

from __future__ import annotations

from importlib import import_module

import pytest


@pytest.fixture(params=["numpy", "torch", "jax", "tensorflow"])
def xp(request):
    """The array functions of one framework."""
    pytest.importorskip(request.param)
    return import_module(f"fabula.arrays.{request.param}")
