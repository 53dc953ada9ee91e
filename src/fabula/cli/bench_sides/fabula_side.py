"""Fabula's side: requests through the engine that generate() and a server use, timed token by token."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np

from fabula import AutoModelForCausalLM, GenerationConfig, __version__
from fabula.engine.request import FinishReason, Request, Step
from fabula.generation.generate import prepare

READ_BYTES = 256 << 20  # beyond any cache


class Side:
    """One loaded model."""

    def __init__(self) -> None:
        self.model: Any = None

    def load(self, source: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Loads; the vocabulary bounds the ids that prompts are drawn from."""
        self.model = AutoModelForCausalLM.from_pretrained(source, **settings)
        self.model.generation_config = GenerationConfig()  # the library's defaults, and no token that ends a row
        return {"version": __version__, "vocabulary": self.model.vocabulary_size}

    def configure(self, settings: dict[str, Any], rows: int, positions: int) -> None:
        """Nothing: one setting serves every figure."""

    def measure(
        self, prompts: list[list[int]], new_tokens: int, sampled: bool = False
    ) -> tuple[float, float, list[int]]:
        """Seconds to every row's first token, from there to the last, and tokens a row; no prefix is found again."""
        engine = self.model.engine
        engine.pool.prefixes.clear()
        requests = clocked(self.model, prompts, new_tokens, sampled)
        clocks: list[Any] = [request.sink for request in requests]
        start = time.perf_counter()
        engine.run(requests)
        first = max(clock.times[0] for clock in clocks)
        last = max(clock.times[-1] for clock in clocks)
        return first - start, last - first, [len(clock.times) for clock in clocks]

    def host(self, prompt: list[int], new_tokens: int) -> dict[str, Any]:
        """Seconds a step that the engine spends outside the model and the choice: plan, batch and commit."""
        engine = self.model.engine
        model, chooser = engine.model, engine.chooser
        step, choose, burst = Stopwatch(model.step), Stopwatch(chooser.choose), Stopwatch(engine.bursts.burst)
        engine.model, engine.chooser = Timed(model, "step", step), Timed(chooser, "choose", choose)
        if engine.bursts.burst is not None:
            engine.bursts.model = Timed(model, "burst", burst)
        try:
            _, rest, tokens = self.measure([prompt], new_tokens)
        finally:
            engine.model, engine.chooser, engine.bursts.model = model, chooser, model
        spent = sum(step.seconds[1:]) + sum(choose.seconds[1:]) + sum(burst.seconds)
        return {"seconds_a_step": (rest - spent) / (tokens[0] - 1)}

    def bandwidth(self, threads: int) -> dict[str, Any]:
        """Bytes a second that `threads` threads read from memory: each reduces its share of a large array by `or`."""
        shares = np.array_split(np.ones(READ_BYTES // 8, np.uint64), threads)
        return {"bytes_per_second": max(READ_BYTES / read_seconds(shares) for _ in range(4))}


class Clock:
    """A sink that notes when each token came; it can wait for them, as generate() without a streamer can."""

    streams = False

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, row: int, step: Step) -> None:
        self.times.append(time.perf_counter())

    def end(self, row: int, reason: FinishReason) -> None:
        assert reason == "length"

    def fail(self, error: BaseException) -> None:
        raise error


class Stopwatch:
    """A function that notes how long each of its calls took."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.seconds: list[float] = []

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        result = self.function(*arguments, **named)
        self.seconds.append(time.perf_counter() - start)
        return result


class Timed:
    """An object, one method of which is timed."""

    def __init__(self, whole: Any, name: str, method: Stopwatch) -> None:
        self._whole = whole
        setattr(self, name, method)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


def clocked(model: Any, prompts: list[list[int]], new_tokens: int, sampled: bool) -> list[Request]:
    """The requests that generate() would make: greedy, or drawn with its defaults; each token goes to a clock."""
    settings = {"max_new_tokens": new_tokens, "do_sample": sampled, "seed": 7}
    requests = prepare(model, prompts, None, None, settings).requests
    return [replace(request, sink=Clock()) for request in requests]


def read_seconds(shares: list[np.ndarray]) -> float:
    """How long the shares take to be read, each by a thread of its own."""
    threads = [threading.Thread(target=np.bitwise_or.reduce, args=(share,)) for share in shares]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start
