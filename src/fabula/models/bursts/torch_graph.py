"""A loop's step as a CUDA graph: captured once, replayed in all bursts of its shape over the same cache.

Whatever differs from burst to burst lies in tensors that keep their place, and is copied into them. What stays the
same is the shape: it holds every number that the host reads while the step is captured.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from fabula.models.bursts.torch_capture import Recorder, Repeated, cuda_recorder

Tensor = torch.Tensor
Steer = Callable[..., Any]  # (condition, body, state, most=steps) -> the state after up to so many steps

__all__ = ["Graphs", "Held", "OverCache", "settings"]

MOST = 16  # graphs over one cache
WORTH = 8  # steps that a burst has to have for a new graph
WARM_UPS = 3  # steps before a capture, as real as all others


class Graphs:
    """A model's graphs. They go with the cache that they write, or when it or the weights lie elsewhere.

    They hold neither: a graph is replayed only where everything lies as it did when the step was captured.
    """

    def __init__(self, recorder_on: Callable[[torch.device], Recorder | None] = cuda_recorder) -> None:
        self.capturing = threading.Lock()  # one at a time
        self._recorder_on = recorder_on
        self._over: weakref.WeakKeyDictionary[Any, OverCache] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._warned = self._failed = False

    def __reduce__(self) -> Any:
        """A copy of a model captures graphs of its own."""
        return Graphs, ()

    def over(self, frame: Any) -> OverCache | None:
        """Those over a frame's cache; None where steps are launched one by one.

        That is so on a CPU, where not all lies on one device, and after a capture that failed. Dropped are those that
        read or write what has moved.
        """
        with self._lock:
            over = self._over.get(frame.cache)
            if self._failed or (over is not None and over.recorder is None):
                return None
            tensors = list(_stored(frame))
            addresses = tuple((tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) for tensor in tensors)
            if over is None or over.addresses != addresses:
                home: torch.device = frame.weights.home
                together = all(tensor.device == home for tensor in tensors)
                over = OverCache(addresses, self._recorder_on(home) if together else None)
                self._over[frame.cache] = over
            return None if over.recorder is None else over

    def refuse(self, reason: str, failed: bool) -> None:
        """Warns once. Where a capture has `failed` it was the last: it may have left PyTorch in disorder."""
        self._failed = self._failed or failed
        if not self._warned:
            self._warned = True
            known = "Steps are launched one by one, with the same texts, as no CUDA graph of one can be captured"
            warnings.warn(f"{known}: {reason}", stacklevel=2)


@dataclass(slots=True)
class OverCache:
    """The graphs over one cache while it, and the weights, lie where they lay; whoever has the cache may use them."""

    addresses: tuple[Any, ...]
    recorder: Recorder | None  # None: nothing can be captured there
    kept: OrderedDict[Hashable, Held | None] = field(default_factory=OrderedDict)  # None: what cannot be captured

    def held(self, shape: Hashable, most: int) -> Held | None:
        """A shape's graph, perhaps a new one if there are so many steps; the one longest unused may go for it."""
        found = self.kept.get(shape)
        if shape in self.kept and (found is None or found.refused):
            self.kept[shape] = None
            return None
        if self.recorder is None or (most < WORTH and (found is None or not found.captured)):
            return None
        found = self.kept.setdefault(shape, found or Held(self.recorder))
        self.kept.move_to_end(shape)
        if len(self.kept) > MOST:
            self.kept.popitem(last=False)
        return found


class Held:
    """A shape's graph, and the tensors that it reads and writes."""

    def __init__(self, recorder: Recorder) -> None:
        self.refused = False
        self._recorder = recorder
        self._inputs: Any = None
        self._state: Any = None
        self._replay: Callable[[], None] | None = None
        self._sent: list[Any] = []  # what the graph reads beside those

    @property
    def captured(self) -> bool:
        """Whether there is a graph."""
        return self._replay is not None

    def written(self, inputs: Any) -> Any:
        """Nested tuples of tensors, their numbers in the tensors that the graph reads."""
        self._inputs = _written(self._inputs, inputs)
        return self._inputs

    def loop(self, graphs: Graphs, steer: Steer, most: int, condition: Any, body: Any, state: Any) -> Any:
        """`state`, from here on in tensors that keep their place, after up to `most` steps."""
        self._state, done = _written(self._state, state), 0
        if self._replay is None:
            done = WARM_UPS
            with graphs.capturing:
                self._capture(graphs, body)
        again = body if self._replay is None else partial(_replayed, self._replay)
        return steer(condition, again, self._state, most=most - done)

    def _capture(self, graphs: Graphs, body: Any) -> None:
        """Captures the step, after a few for real; where it cannot be, what stops it is told."""
        watched, failed = Repeated(), False

        def step() -> None:
            _copy(self._state, body(self._state))

        def watched_step() -> None:
            with watched:
                step()

        self._recorder.aside(step)  # in which much is made that lasts
        for _ in range(WARM_UPS - 1):
            self._recorder.aside(watched_step)
        if watched.obstacle is None:
            try:
                self._replay, self._sent = self._recorder.capture(watched_step), watched.sent
            except RuntimeError as error:
                watched.obstacle, failed = str(error).partition("\n")[0], True
        if watched.obstacle is not None:
            self._replay, self.refused = None, True
            graphs.refuse(watched.obstacle, failed)


def settings() -> tuple[Hashable, ...]:
    """PyTorch's, for which a captured step does not ask again: part of every shape."""
    autocast = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda")
    precision = getattr(torch.backends.cuda.matmul, "fp32_precision", None) or torch.get_float32_matmul_precision()
    return torch.are_deterministic_algorithms_enabled(), autocast, precision


def _replayed(replay: Callable[[], None], state: Any) -> Any:
    replay()
    return state


def _stored(frame: Any) -> Iterator[Tensor]:
    """The cache's tensors and the weights: what a step reads of what outlives a burst."""
    yield from (tensor for part in frame.cache.stored for tensor in part)
    for place in (frame.weights.outside, *frame.weights.layers):
        yield from (value for value in vars(place).values() if value is not None)


def _written(places: Any, values: Any) -> Any:
    """The places, nested tuples of tensors, with these values; without places, new ones."""
    if places is None:
        return _new(values)
    _copy(places, values)
    return places


def _new(values: Any) -> Any:
    if isinstance(values, tuple):
        parts = [_new(value) for value in values]
        return type(values)(*parts) if hasattr(values, "_fields") else tuple(parts)
    with torch.inference_mode(False):  # bursts outside of it write there too
        return values.clone() if isinstance(values, Tensor) else values


def _copy(places: Any, values: Any) -> None:
    """Each place's tensor gets its value; values are new tensors, or the very ones of their places."""
    for place, value in zip(_tensors(places), _tensors(values), strict=True):
        if value is not place:
            assert value.shape == place.shape and value.dtype == place.dtype
            place.copy_(value)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple):
        for value in values:
            yield from _tensors(value)
