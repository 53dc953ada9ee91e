"""Loaded sides take turns: each peer at its best settings, every round with new prompts, the same for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fabula.cli.bench_figures import Work
from fabula.cli.bench_peers import Settings
from fabula.cli.bench_workers import WorkerProcess

SEED = 20_240_607
Samples = dict[str, dict[str, list[float]]]  # side -> figure -> a number a round


@dataclass(slots=True)
class Side:
    """A loaded engine, and the settings that each figure takes of it."""

    worker: WorkerProcess
    vocabulary: int  # its ids are [0, vocabulary)
    version: str
    best: dict[str, Settings] = field(default_factory=dict)  # by figure; absent: the side has nothing to set
    tried: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by figure: settings and the rate they gave

    @property
    def name(self) -> str:
        return self.worker.name


def load_side(worker: WorkerProcess, source: str, settings: Settings) -> Side:
    """Starts the engine and loads the model."""
    worker.ask("start")
    facts = worker.ask("load", source=source, settings=settings)
    return Side(worker, facts["vocabulary"], facts["version"])


def rate(side: Side, work: Work, prompts: list[list[int]], settings: Settings | None, **options: Any) -> float:
    """Tokens a second of the work's part."""
    if settings is not None:
        side.worker.ask("configure", settings=settings, rows=work.rows, positions=work.prompt + work.new)
    return work.tokens / side.worker.measure(prompts, work.new, **options)[work.part]


def choose_settings(side: Side, measured: Sequence[Work], grid: Callable[[Work], list[Settings]], tries: int) -> None:
    """Tries the grid for each figure, after one run that is not counted; the best of `tries` runs decides."""
    for work in measured:
        tried: list[dict[str, Any]] = []
        for settings in grid(work):
            runs = [
                rate(side, work, work.prompts(SEED, -1 - number + 2**32, side.vocabulary), settings)
                for number in range(tries + 1)
            ]
            tried.append({"settings": settings, "rate": max(runs[1:])})
        side.tried[work.name] = tried
        side.best[work.name] = max(tried, key=lambda one: one["rate"])["settings"]


def interleaved(sides: Sequence[Side], measured: Sequence[Work], rounds: Iterable[int]) -> Samples:
    """A rate of every side, figure and round; who goes first changes from round to round."""
    samples: Samples = {side.name: {work.name: [] for work in measured} for side in sides}
    vocabulary = min(side.vocabulary for side in sides)
    for number in rounds:
        for work in measured:
            prompts = work.prompts(SEED, number, vocabulary)
            for side in sides if number % 2 else reversed(sides):
                samples[side.name][work.name].append(rate(side, work, prompts, side.best.get(work.name)))
    return samples


def own_figures(side: Side, decode: Work, threads: int, number: int) -> dict[str, float]:
    """One round of what only our side has: sampling, the engine's own cost, and what memory gives."""
    first, second, third = (decode.prompts(SEED + place, number, side.vocabulary) for place in (1, 2, 3))
    greedy = rate(side, decode, first, None)
    sampled = rate(side, decode, second, None, sampled=True)
    host = side.worker.ask("own", what="host", prompt=third[0], new_tokens=decode.new)
    memory = side.worker.ask("own", what="bandwidth", threads=threads)
    return {
        "decode 1 row, sampled": sampled,
        "cost of sampling": 100 * (greedy / sampled - 1),
        "plan and commit": 1e6 * host["seconds_a_step"],
        "read bandwidth": memory["bytes_per_second"] / 1e9,
    }
