"""Where Fabula keeps what it fetches itself (what comes from the hub lies in huggingface_hub's own cache)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path


def cache_folder(environment: Mapping[str, str] | None = None, platform: str | None = None) -> Path:
    """FABULA_CACHE if set, else "fabula" in the place that the platform has for caches; it may not exist yet."""
    variables = os.environ if environment is None else environment
    system = sys.platform if platform is None else platform
    if variables.get("FABULA_CACHE"):
        return Path(variables["FABULA_CACHE"])
    if variables.get("XDG_CACHE_HOME"):
        return Path(variables["XDG_CACHE_HOME"]) / "fabula"
    if system == "win32" and variables.get("LOCALAPPDATA"):
        return Path(variables["LOCALAPPDATA"]) / "fabula" / "Cache"
    if system == "darwin":
        return Path.home() / "Library" / "Caches" / "fabula"
    return Path.home() / ".cache" / "fabula"
