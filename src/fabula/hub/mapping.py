"""A file mapped into memory, read only."""

from __future__ import annotations

import mmap
from pathlib import Path

from fabula.errors import ModelFileError


def map_file(path: Path) -> mmap.mmap:
    """The file's bytes, paged in as they are touched, mapped while anything views them; raises ModelFileError."""
    try:
        with open(path, "rb") as file:
            if file.seek(0, 2) == 0:
                raise ModelFileError(f"{path} must hold a model, got an empty file. Fetch or copy it again.")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ModelFileError(f"{path} must be a file, got nothing of that name. Check the path.") from None
    except ModelFileError:
        raise
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"{path} must be a readable file, got: {error}. Check its type and permissions."
        ) from error
