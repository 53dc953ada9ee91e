"""What this machine has that matters to Fabula: for `fabula info`, and for a bug report."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

import fabula
from fabula.kernels.library import load_library

PACKAGES = (
    "numpy",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "jinja2",
    "torch",
    "jax",
    "tensorflow",
    "transformers",
)


def environment() -> dict[str, Any]:
    """The facts, in the order in which they are shown. No framework is imported to find them."""
    return {
        "fabula": fabula.__version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": usable_cores(),
        "kernels": kernels(),
        "packages": {name: version_of(name) for name in PACKAGES},
    }


def kernels() -> str:
    """The instruction sets that the native kernels can use here, the one they use last."""
    library = load_library()
    return ", ".join(library.isas) if library else "not built: NumPy does their work, slowly"


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def version_of(package: str) -> str | None:
    """The installed version, None where it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
