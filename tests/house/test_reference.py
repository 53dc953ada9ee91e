"""The reference says what the code says, and leaves no public name out."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

import pytest

import fabula

from .sources import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date(maker: ModuleType):
    written = (DOCS / "reference.md").read_text(encoding="utf-8")
    assert maker.reference() == written, "it is not: run `python docs/make_reference.py`"


def test_every_public_name_is_in_the_reference_once(maker: ModuleType):
    named = [name for names in maker.CHAPTERS.values() for name in names.split()]
    assert sorted(name for name in named if ":" not in name) == sorted({*fabula.__all__} - {"__version__"})
