"""How a source is looked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fabula.hub.progress import Progress, no_progress


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a hub id needs besides its name; a directory or a file needs none of it."""

    revision: str | None = None  # a branch, a tag or a commit
    token: str | bool | None = None  # None: the one that huggingface_hub finds
    cache_dir: str | Path | None = None  # None: the user's
    local_files_only: bool = False
    progress: Progress = no_progress
