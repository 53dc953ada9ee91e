"""A side's process as `fabula bench` sees it: asked over a pipe, one question at a time, silent in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fabula.errors import FabulaError, MissingDependencyError

SCRIPT = Path(__file__).parent / "bench_sides" / "worker.py"
PAUSE = 0.02  # seconds before a measurement: threads that still spin from the last one go to sleep
TOLD = 2000  # characters of a dead process's last words


class WorkerProcess:
    """One side, from its start to the end of a `with` block."""

    def __init__(self, name: str, engine: str, python: str = sys.executable) -> None:
        """`name` as people say it, `engine` as its script is called, `python` the interpreter that has it."""
        self.name = name
        self.python = python
        self.started = time.perf_counter()
        self.idle_share = 0.0  # the most of one core that it used while it waited
        self._words = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        environment = {
            key: value for key, value in os.environ.items() if python == sys.executable or key != "PYTHONPATH"
        }
        try:
            self._process = subprocess.Popen(
                [python, str(SCRIPT), engine],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                text=True,
                encoding="utf-8",
                env=environment,
            )
        except OSError as error:
            self._words.close()
            raise MissingDependencyError(f"{python} must be a Python interpreter: {error.strerror}.") from error

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *raised: object) -> None:
        """Ends the process, by force where it does not listen."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._words.close()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer. Raises MissingDependencyError for an engine that is not there, FabulaError for one that fails."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise FabulaError(f"{self.name} ended while it was asked to {do}: {self._last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            kind = MissingDependencyError if answer["missing"] else FabulaError
            raise kind(f"{self.name} in {self.python}: {answer['error']}")
        if do == "measure" and answer["idle_seconds"] > 0.2:
            self.idle_share = max(self.idle_share, answer["idle_cpu_seconds"] / answer["idle_seconds"])
        return answer

    def measure(self, prompts: list[list[int]], new_tokens: int, **options: Any) -> dict[str, Any]:
        """A measurement, after a pause. Raises FabulaError for one that did other work than it was asked for."""
        time.sleep(PAUSE)
        answer = self.ask("measure", prompts=prompts, new_tokens=new_tokens, **options)
        if answer["tokens"] != [new_tokens] * len(prompts):
            raise FabulaError(f"{self.name} must make {new_tokens} tokens in each row, got {answer['tokens']}.")
        return answer

    def _last_words(self) -> str:
        self._words.seek(0)
        return self._words.read()[-TOLD:] or "it said nothing"
