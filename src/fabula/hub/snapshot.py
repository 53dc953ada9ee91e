"""Files of a hub repository, through huggingface_hub: its cache, its settings, its offline mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from huggingface_hub import errors, hf_hub_download, snapshot_download

from fabula.errors import DownloadError
from fabula.hub.source_options import SourceOptions


def fetch_snapshot(repository: str, patterns: Sequence[str], options: SourceOptions) -> Path:
    """The directory with the repository's files that match; raises DownloadError."""
    return _explained(
        repository,
        options,
        lambda: snapshot_download(
            repository,
            revision=options.revision,
            token=options.token,
            cache_dir=options.cache_dir,
            local_files_only=options.local_files_only,
            allow_patterns=list(patterns),
        ),
    )


def fetch_file(repository: str, name: str, options: SourceOptions) -> Path:
    """One file of the repository; raises DownloadError."""
    return _explained(
        repository,
        options,
        lambda: hf_hub_download(
            repository,
            name,
            revision=options.revision,
            token=options.token,
            cache_dir=options.cache_dir,
            local_files_only=options.local_files_only,
        ),
    )


def _explained(repository: str, options: SourceOptions, fetch: Callable[[], str]) -> Path:
    """What `fetch` returns, with its failures in our words."""
    asked = f"hub repository {repository!r}" + (f" at {options.revision!r}" if options.revision else "")
    try:
        return Path(fetch())
    except errors.GatedRepoError as error:
        raise DownloadError(f"{asked} is gated. Accept its terms on the hub, then pass token= or log in.") from error
    except errors.RevisionNotFoundError as error:
        raise DownloadError(f"{asked} has no such revision. Pass the name of a branch, a tag or a commit.") from error
    except errors.RepositoryNotFoundError as error:
        raise DownloadError(
            f"{asked} is not there, or is private. Check the name; for a private one pass token=."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if options.local_files_only:
            raise DownloadError(f"{asked} is not in the cache. Call once without local_files_only=True.") from error
        raise DownloadError(
            f"{asked} is not in the cache and the hub cannot be reached, or is switched off (HF_HUB_OFFLINE). "
            "Check the connection, or name a local directory or .gguf file."
        ) from error
    except Exception as error:  # whatever the library's network stack of the day raises
        raise DownloadError(f"{asked} could not be fetched: {_first_line(error)} Check the connection.") from error


def _first_line(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    return line if line.endswith(".") else f"{line}."
