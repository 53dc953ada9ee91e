"""The loop of a side's process: a line of JSON asks, a line of JSON answers, and in between it waits for the next."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import sys
import time
from typing import Any, TextIO


def main(engine: str) -> None:
    """Serves the side of `<engine>_side.py` beside this file until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    with contextlib.suppress(KeyboardInterrupt):
        serve(Worker(engine), sys.stdin, replies)


def serve(worker: Worker, requests: TextIO, replies: TextIO) -> None:
    """Answers each request with what the method it names returns, and what this process computed while it waited."""
    clock, cpu = time.perf_counter(), time.process_time()
    for line in requests:
        idle = {"idle_seconds": time.perf_counter() - clock, "idle_cpu_seconds": time.process_time() - cpu}
        replies.write(json.dumps(answer(worker, json.loads(line)) | idle) + "\n")
        replies.flush()
        clock, cpu = time.perf_counter(), time.process_time()


def answer(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    """The method's result, or what went wrong in words."""
    try:
        return getattr(worker, request.pop("do"))(**request)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "missing": isinstance(error, ImportError)}


class Worker:
    """What a side can be asked."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.side: Any = None

    def start(self) -> dict[str, Any]:
        """Imports the engine: seconds of it, wall and processor."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.side = importlib.import_module(f"{self.engine}_side").Side()
        return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}

    def load(self, source: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Loads a model: its seconds, and what the side says of itself."""
        wall = time.perf_counter()
        facts = self.side.load(source, settings)
        return facts | {"seconds": time.perf_counter() - wall}

    def configure(self, settings: dict[str, Any], rows: int, positions: int) -> dict[str, Any]:
        """Makes the side compute with these settings, for so many rows of so many positions."""
        self.side.configure(settings, rows, positions)
        return {}

    def measure(self, prompts: list[list[int]], new_tokens: int, **options: Any) -> dict[str, Any]:
        """Continues the prompts greedily: seconds to every row's first token, from there to the last, tokens a row."""
        first, rest, tokens = self.side.measure(prompts, new_tokens, **options)
        return {"first": first, "rest": rest, "tokens": tokens}

    def peak(self) -> dict[str, Any]:
        """The most memory this process had at once, in bytes, pages of mapped files included."""
        return {"bytes": peak_bytes()}

    def own(self, what: str, **options: Any) -> dict[str, Any]:
        """A figure that only this side has."""
        return getattr(self.side, what)(**options)


def peak_bytes() -> int:
    """The high-water mark of resident memory.

    Linux tells it of this process alone; getrusage's may be that of the parent, from before the exec.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main(sys.argv[1])
