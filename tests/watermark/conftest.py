"""The installed frameworks, as array modules: every test of a processor runs on each of them."""

from __future__ import annotations

from importlib import import_module

import pytest


@pytest.fixture(params=["numpy", "torch"])
def xp(request):
    """The array functions of one framework."""
    pytest.importorskip(request.param)
    return import_module(f"fabula.arrays.{request.param}")
