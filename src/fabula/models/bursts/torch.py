"""Many steps of closed rows in PyTorch: a loop on the device, which the host steers without waiting for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from fabula.arrays import torch as functions
from fabula.cache.blocks import BLOCK
from fabula.cache.torch import TorchCache
from fabula.decoding.closed.loop import Choose, Forward, Turn, decode
from fabula.decoding.closed.record import Gained, Recorded, blank, gained_of
from fabula.decoding.closed.rows import ClosedRows, Form, map_arrays
from fabula.decoding.plain_rows import Sampler, is_plain, plain_choices
from fabula.models.bursts.torch_compiled import Compiled
from fabula.models.bursts.torch_graph import Graphs
from fabula.models.bursts.torch_inputs import start
from fabula.models.families.family import Family
from fabula.models.passes.torch import Weights, head, last_norm
from fabula.ops.layers import unrolled
from fabula.ops.protocol import NO_TAPS, Batch
from fabula.ops.torch import Elsewhere, TorchOps
from fabula.ops.torch_layout import Group, Layout, Reach, blocks_read, sees, to_device
from fabula.ops.torch_memory import MemoryLayout, memory_layout

Tensor = torch.Tensor

__all__ = ["Frame", "ahead_on", "begun_blocks", "computed", "frame_of", "moved", "run_burst", "steered"]

AHEAD = 4  # steps on a GPU between two looks at its rows
LONG = 0.1  # seconds: new requests, and whoever wants to cancel one, wait so long


@dataclass(frozen=True, slots=True)
class Frame:
    """R rows over the same blocks from step to step, each of which computes one position a step."""

    family: Family
    weights: Weights
    cache: TorchCache
    first: Tensor  # Int["R 1"]: the position that each row computes first
    slots: Tensor  # Int["R K"]: where its K positions from there on lie in the cache, block * BLOCK + place
    reaches: dict[int | None, tuple[Tensor, Tensor]]  # window -> blocks Int["R B"], their positions Int["R B*BLOCK"]
    end: int | None  # all positions are below it; None: unknown
    early: tuple[int, ...] = ()  # after which so many layers the head is asked too
    memories: MemoryLayout | None = None  # what an encoder left, and which row reads what
    others: Mapping[torch.device, Frame] = field(default_factory=dict)  # the same on other layers' devices

    def forward(self, last: Tensor, position: Tensor, state: Any) -> tuple[Any, Any]:
        """Float["R V"] after the tokens `last` Int["R"] at these positions; their keys and values are written.

        With early layers a list: the last layer's, and then theirs.
        """
        last, position = last.to(self.weights.home), position.to(self.weights.home, torch.int64)
        layout = self._layout(last, position)
        elsewhere = partial(self._elsewhere, last, position) if self.others else None
        logits = computed(self.family, self.weights, layout, self.cache, self.early, self.memories, elsewhere)
        return logits if self.early else logits[0], state

    def _elsewhere(self, last: Tensor, position: Tensor, device: torch.device) -> tuple[Layout, MemoryLayout | None]:
        """The step's indices where other layers are."""
        other = self.others[device]
        return other._layout(last.to(device), position.to(device)), other.memories

    def _layout(self, last: Tensor, position: Tensor) -> Layout:
        queries = position[:, None]
        slots = self.slots.gather(1, queries - self.first)[:, 0]
        reaches = {
            window: Reach(tables, sees(queries, keys, window), queries, keys)
            for window, (tables, keys) in self.reaches.items()
        }
        rows = len(last)
        group = Group(rows, 1, None, reaches, (1,) * rows, (self.end or 0,) * rows, tuple(range(rows)))
        return Layout(last, position, slots, None, None, (group,), None, self.end)


def computed(
    family: Family,
    weights: Weights,
    layout: Layout,
    cache: TorchCache,
    early: Sequence[int] = (),
    memories: MemoryLayout | None = None,
    elsewhere: Elsewhere | None = None,
) -> list[Tensor]:
    """Float["T V"] of each: a step's logits, whose keys and values are written, and those after so many layers."""
    ops = TorchOps(layout, cache, NO_TAPS, memories=memories, rotations=weights.rotations, elsewhere=elsewhere)
    states: dict[int, Tensor] = {}
    x = family.embed(ops, weights.outside)
    x = unrolled(family, ops, x, weights.layers, states.__setitem__, arrive=weights.arrive)
    hidden = [last_norm(family, ops, x, weights), *(states[layer] for layer in early)]
    return [head(family, ops, each, weights).float() for each in hidden]


def steered(
    condition: Callable[[Any], Tensor], body: Callable[[Any], Any], state: Any, most: int, ahead: int = 1
) -> Any:
    """The state, a tuple, after `body` at most so often, until `condition` of it was seen not to hold or LONG is over.

    The host notes the condition after each `ahead` steps and, if these are several, looks at it when as many more are
    under way, so that a device has always something to do; up to 2 * ahead - 1 steps are too many then.
    """
    end = time.monotonic() + LONG
    unseen: list[Callable[[], bool]] = []
    done = 0
    while done < most:
        count = min(ahead, most - done)
        for _ in range(count):
            state = body(state)
        done += count
        unseen.append(noted(condition(state)))
        if len(unseen) >= min(ahead, 2) and not (unseen.pop(0)() and time.monotonic() < end):
            break
    return state


def noted(flag: Tensor) -> Callable[[], bool]:
    """What tells whether the flag held when this was called, without keeping the device from what follows."""
    if flag.device.type != "cuda":
        return lambda: bool(flag.item())
    there, event = flag.to("cpu", non_blocking=True), torch.cuda.Event()
    event.record(torch.cuda.current_stream(flag.device))

    def look() -> bool:
        event.synchronize()
        return bool(there.item())

    return look


@dataclass(frozen=True, slots=True)
class Course:
    """How a burst is run: what `decode` is given."""

    forward: Forward
    rows: ClosedRows  # on the device
    choose: Choose | None
    loop: Callable[..., Any]
    turns: int  # for which there is room in what is kept of them


@torch.no_grad()
def run_burst(
    family: Family,
    weights: Weights,
    sampler: Sampler | None,
    batch: Batch,
    cache: TorchCache,
    form: Form,
    rows: ClosedRows,
    compiled: Compiled,
    graphs: Graphs,
) -> list[Gained]:
    """What each row got, whose keys and values are in the cache then; the batch is the first step's.

    On a CUDA device a step is replayed as a graph; where layers are on several devices, or torch.compile has the
    forward, and where a step cannot be captured, its operations are launched one by one.
    """
    frame = frame_of(family, weights, batch, cache, rows.room.repeat(form.each), form.layers)
    steer = partial(steered, most=int(rows.room.max()), ahead=ahead_on(weights.outside.head.device))
    started = start(graphs, frame, batch, form, rows, steer)
    if started is None:
        course = _launched(frame, sampler, form, rows, compiled, steer)
    else:
        course = Course(started.frame.forward, started.rows, started.choose, started.loop, started.turns)
    kept = blank(functions, form, course.rows, course.turns, int(family.config.vocab_size))
    end = decode(course.forward, None, form, course.rows, course.choose, course.loop, kept)
    found = [part if isinstance(part, tuple) else functions.to_host(part) for part in end.kept]
    kept = Recorded(*found) if found else ()
    return gained_of(rows, functions.to_host(end.tokens), functions.to_host(end.lengths), kept, len(rows.lengths))


def _launched(
    frame: Frame, sampler: Sampler | None, form: Form, rows: ClosedRows, compiled: Compiled, steer: Callable[..., Any]
) -> Course:
    """Whose operations are launched one by one."""
    choose = None if sampler is None or not is_plain(form) else sampled_by(sampler, form, rows)
    forward = frame.forward if form.compiled is None else compiled.forward(frame, form.compiled)
    there = moved(rows, frame.weights.outside.head)
    return Course(forward, there, choose, steer, int(rows.room.max()))


def ahead_on(device: torch.device) -> int:
    """How many steps are made between two looks at the rows."""
    return AHEAD if device.type == "cuda" else 1


def moved(rows: ClosedRows, like: Tensor) -> ClosedRows:
    """The rows where a tensor is; a number of a processor that is the same in all of them stays a number."""
    there = map_arrays(rows, lambda part: functions.asarray(part, str(part.dtype), like=like))
    return replace(
        there,
        numbers=tuple(
            {name: value[0, 0].item() if _is_one(value) else own[name] for name, value in given.items()}
            for given, own in zip(rows.numbers, there.numbers, strict=True)
        ),
    )


def _is_one(value: np.ndarray) -> bool:
    """Whether it is a number, the same in all rows."""
    return value.shape[1:] == (1,) and bool((value == value[0]).all())


def sampled_by(sampler: Sampler, form: Form, rows: ClosedRows) -> Choose:
    """What has the kernels choose for rows on a CPU whose processors are plain numbers."""
    choices = plain_choices(form, rows, 0)
    hidden = rows.hidden.tolist()

    def choose(logits: Tensor, turn: Turn) -> tuple[Tensor, Tensor, None]:
        places = zip(choices, turn.tokens.numpy(), turn.lengths.tolist(), hidden, strict=True)
        now = [replace(each, position=length + before, tokens=row[:length]) for each, row, length, before in places]
        tokens = sampler(logits, now)
        return tokens.clamp(min=0), tokens >= 0, None

    return choose


def frame_of(
    family: Family, weights: Weights, batch: Batch, cache: TorchCache, room: np.ndarray, early: tuple[int, ...] = ()
) -> Frame:
    """The frame of a batch whose rows compute so many positions Int["R"] at most; their new blocks are zeroed."""
    windows = tuple(dict.fromkeys(layer.attention.window for layer in family.layers))
    first = batch.first.astype(np.int64)
    read = [blocks_read(batch.tables, first, first + room, window) for window in windows]
    positions = positions_of(first, room)
    blocks = np.take_along_axis(batch.tables, positions // BLOCK, 1).astype(np.int64)
    begun = begun_blocks(batch.tables, first, room)
    arrays = [first[:, None], blocks * BLOCK + positions % BLOCK, begun, *(part for pair in read for part in pair)]
    end = int((first + room).max())

    def frame_on(device: torch.device) -> Frame:
        begin, slots, new, *parts = to_device(arrays, device)
        for layer in range(len(family.layers) if len(begun) else 0):
            if weights.devices is None or weights.devices[layer] == device:
                cache.clear(layer, new)
        reaches = {
            window: (tables, starts + torch.arange(tables.shape[1] * BLOCK, device=tables.device))
            for window, tables, starts in zip(windows, parts[::2], parts[1::2], strict=True)
        }
        return Frame(family, weights, cache, begin, slots, reaches, end, early, memory_layout(batch, device))

    others = {device: frame_on(device) for device in set(weights.devices or ()) - {weights.home}}
    return replace(frame_on(weights.home), others=others)


def positions_of(first: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Int["R K"]: the positions that rows compute from their first on, Int["R"]; short rows repeat their last."""
    return first[:, None] + np.minimum(np.arange(int(room.max())), room[:, None] - 1)


def begun_blocks(tables: np.ndarray, first: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Int["N"]: the blocks of tables Int["R B"] that rows begin who compute so many positions Int["R"] at most."""
    positions = positions_of(first, room)
    return np.unique(np.take_along_axis(tables, positions // BLOCK, 1)[positions % BLOCK == 0]).astype(np.int64)
