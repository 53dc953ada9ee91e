"""What a fresh process costs: import, load, the first token since its start, and the memory it comes to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from fabula.cli.bench_figures import FRESH, Work
from fabula.cli.bench_peers import Settings
from fabula.cli.bench_rounds import SEED, Samples
from fabula.cli.bench_workers import WorkerProcess

SHORT = Work("first token", prompt=16, rows=1, new=1, part="first")
LONG = Work("peak memory", prompt=512, rows=1, new=33, part="first")


def fresh_rounds(
    starts: Sequence[tuple[Callable[[], WorkerProcess], Settings]],
    source: str,
    rounds: Iterable[int],
    context: int,
) -> Samples:
    """For each round a process of each side, one after the other; who goes first changes from round to round."""
    samples: Samples = {}
    for number in rounds:
        for start, settings in starts if number % 2 else reversed(starts):
            with start() as worker:
                figures = fresh_figures(worker, source, settings, number, context)
            of_side = samples.setdefault(worker.name, {figure.name: [] for figure in FRESH})
            for name, value in figures.items():
                of_side[name].append(value)
    return samples


def fresh_figures(
    worker: WorkerProcess, source: str, settings: Settings, number: int, context: int
) -> dict[str, float]:
    """The figures of one process, which has just been started."""
    imported = worker.ask("start")
    loaded = worker.ask("load", source=source, settings=settings)
    vocabulary = loaded["vocabulary"]
    worker.ask("measure", prompts=SHORT.prompts(SEED, number, vocabulary), new_tokens=SHORT.new)
    first = time.perf_counter() - worker.started
    if context >= LONG.prompt + LONG.new:
        worker.measure(LONG.prompts(SEED, number, vocabulary), LONG.new)
    return {
        "import": imported["seconds"],
        "import, processor": imported["cpu_seconds"],
        "load": loaded["seconds"],
        "first token": first,
        "peak memory": worker.ask("peak")["bytes"] / 2**20,
    }
