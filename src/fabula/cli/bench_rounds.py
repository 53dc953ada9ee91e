"""Loaded sides take turns: each peer at its best settings, every round with new prompts, the same for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fabula.cli.bench_figures import Work
from fabula.cli.bench_peers import Settings
from fabula.cli.bench_workers import WorkerProcess

SEED = 20_240_607
WARM_UP = 2**32  # the number of a round that is not counted; those below it choose settings
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
    """Tries the grid for each figure and keeps the best settings."""
    for work in measured:
        tried: list[dict[str, Any]] = []
        for settings in grid(work):
            best = max((one["rate"] for one in tried), default=0.0)
            tried.append({"settings": settings, "rate": best_rate(side, work, settings, tries, best)})
        side.tried[work.name] = tried
        side.best[work.name] = max(tried, key=lambda one: one["rate"])["settings"]


def best_rate(side: Side, work: Work, settings: Settings, tries: int, known: float) -> float:
    """The best of `tries` runs after one that warms up; that one's alone where it is below half of what is known."""
    warm_up, *rounds = (WARM_UP - number for number in range(tries + 1))
    first = rate(side, work, work.prompts(SEED, warm_up, side.vocabulary), settings)
    if first < known / 2:
        return first
    return max(rate(side, work, work.prompts(SEED, number, side.vocabulary), settings) for number in rounds)


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
