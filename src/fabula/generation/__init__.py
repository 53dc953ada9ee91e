"""The door that looks like transformers: a config, its rules, generate(), what comes back, and streamers."""

from __future__ import annotations

import sys
from typing import Any


def __getattr__(name: str) -> Any:
    """A public name of fabula: `from transformers.generation import LogitsProcessor` needs another first word only."""
    fabula = sys.modules["fabula"]  # above this package, so it is there
    if name not in fabula.__all__ or name.startswith("_"):
        raise AttributeError(f"module 'fabula.generation' has no attribute {name!r}")
    return getattr(fabula, name)
