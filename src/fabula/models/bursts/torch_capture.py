"""What records a step of a loop on a device, to run it again without Python, and what may not be recorded."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["CudaRecorder", "Recorder", "Repeated", "cuda_recorder"]

Step = Callable[[], None]
UNSHAPED = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}  # what the host has to be told


class Recorder(Protocol):
    """Records a step, which reads and writes tensors that stay where they are."""

    def aside(self, step: Step) -> None:
        """Runs the step for real, where it will be recorded: whatever is made once is made then."""

    def capture(self, step: Step) -> Step:
        """What does the step's work again, now with what the tensors hold then; nothing of it is done here.

        Raises RuntimeError where it cannot be recorded.
        """


class CudaRecorder:
    """Records a step as a CUDA graph, on a stream of its own.

    PyTorch's notes on CUDA semantics, section "CUDA Graphs", say what is asked of a step, and of what runs before.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self._last: weakref.ref[torch.cuda.CUDAGraph] | None = None  # graphs that take turns share their memory
        self._unfinished: torch.cuda.CUDAGraph | None = None  # which PyTorch may still ask what it captures

    def aside(self, step: Step) -> None:
        """Runs it on the other stream, between what this one has to do before and after."""
        with torch.cuda.device(self.device):
            now = torch.cuda.current_stream()
            self.stream.wait_stream(now)
            with torch.cuda.stream(self.stream):
                step()
            now.wait_stream(self.stream)

    def capture(self, step: Step) -> Step:
        """Launches nothing; other threads may go on. Raises RuntimeError, as which CUDA's errors come."""
        graph = torch.cuda.CUDAGraph()
        other = None if self._last is None else self._last()
        pool = None if other is None else other.pool()
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            self._unfinished = graph
            try:
                step()
            except BaseException:
                with suppress(RuntimeError):  # why the step failed says more
                    graph.capture_end()
                raise
            graph.capture_end()
            self._unfinished = None
        self._last = weakref.ref(graph)
        return graph.replay


def cuda_recorder(device: torch.device) -> Recorder | None:
    """One for a CUDA device; None for others, whose steps nothing records."""
    return CudaRecorder(device) if device.type == "cuda" else None


class Repeated(TorchDispatchMode):
    """Watches a step that is run several times, and makes it one that can be recorded.

    What it sends from the host, such as the lists of processors, is sent in the first run and stays on the device: a
    recording would know no more of the host than an address. Where that differs from run to run, or where the host
    waits for the device, `obstacle` says so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.obstacle: str | None = None
        self.sent: list[tuple[Any, torch.Tensor]] = []  # what was sent and how, and it on the device
        self._place = 0
        self._again = False  # whether it has run before

    def __enter__(self) -> Repeated:
        self._place = 0
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if self._place < len(self.sent):
            self._differs()
        self._again = True

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function.__name__.partition(".")[0]
        if name in ("_pin_memory", "pin_memory"):
            return args[0]  # it is sent once, and waited for
        if name == "_to_copy" and _is_here(args[0]) and torch.device(kwargs.get("device") or "cpu").type != "cpu":
            return self._on_device(function, args[0], kwargs)
        if _waits(function, name, args, kwargs):
            self.obstacle = self.obstacle or f"{function} waits for the device"
        return function(*args, **kwargs)

    def _on_device(self, function: Any, given: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
        what, place = (given.tolist(), given.dtype, kwargs), self._place
        self._place += 1
        if not self._again:
            self.sent.append((what, function(given, **kwargs)))
        elif place >= len(self.sent) or self.sent[place][0] != what:
            self._differs()
            return function(given, **kwargs)
        return self.sent[place][1]

    def _differs(self) -> None:
        self.obstacle = self.obstacle or "the host sends other numbers at each step"


def _is_here(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu"


def _waits(function: Any, name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether an operation brings something from the device, or makes what only the host can make room for."""
    tensors = [each for each in args if isinstance(each, torch.Tensor)]
    if all(map(_is_here, tensors)):
        return False
    if name == "copy_":
        return args[0].device != args[1].device
    if name == "_to_copy":
        asked = kwargs.get("device")
        return asked is not None and torch.device(asked).type != args[0].device.type
    if name in ("index", "index_put", "index_put_", "_unsafe_index"):
        return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1])
    return not UNSHAPED.isdisjoint(function.tags)
