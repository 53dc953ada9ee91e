"""A CUDA graph that is none: operations recorded on the CPU with their very tensors, and done again without Python."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from tests.models.placement.pretended_devices import Elsewhere

UNSHAPED = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Tape(TorchDispatchMode):
    """Records what is done while it is active, and leaves no trace of it, as a capture does, which launches nothing.

    What was made meanwhile holds nonsense afterwards: whoever looks at it, and not at what a replay made of it, sees
    that. Raises RuntimeError where a capture would: where the host waits for a device, or sends something to one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []  # of what is done again
        self._calls: list[Callable[[], None]] = []
        self._made: dict[int, torch.Tensor] = {}  # by where it is stored
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # what is written, and what it held
        self._read: dict[int, StorageWeakRef] = {}  # what was there before

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        with _disable_current_modes():
            for tensor, before in self._before.values():
                tensor.copy_(before)
        self._forget()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        _refuse_what_waits(function, args, kwargs)
        here = _held(args), {name: torch.device("cpu") if name == "device" else _held(kwargs[name]) for name in kwargs}
        given = _tensors(here)
        written = _written(function, *here)
        with _disable_current_modes():
            self._save(written)
        result = function(*args, **kwargs)
        made = _tensors(_held(result))
        known = {_place(each) for each in given}
        fresh = [each for each in made if each.numel() and _place(each) not in known]
        self._made.update({_place(each): each for each in fresh})
        for each in _tensors((args, kwargs)):
            if isinstance(each, Elsewhere) and each.numel() and _place(each.held) not in self._made:
                self._read.setdefault(_place(each.held), StorageWeakRef(each.held.untyped_storage()))
        if fresh or written:
            self.names.append(function.__name__)
            self._calls.append(partial(_again, function, here, made))
        return result

    def replay(self) -> None:
        """Does everything again, in order, with what the tensors hold now."""
        with torch.no_grad(), _disable_current_modes():
            for call in self._calls:
                call()
        self._forget()

    def orphans(self) -> int:
        """How many tensors that it reads nobody else holds, as a graph holds none; it is of no use afterwards."""
        self._calls.clear()
        self._made.clear()
        self._before.clear()
        return sum(one.expired() for one in self._read.values())

    def _save(self, written: list[torch.Tensor]) -> None:
        for tensor in written:
            if _place(tensor) not in self._made and _place(tensor) not in self._before:
                whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
                self._before[_place(tensor)] = whole, whole.clone()

    def _forget(self) -> None:
        """The memory of what a step makes serves others between two replays."""
        with torch.no_grad(), _disable_current_modes():
            for tensor in self._made.values():
                tensor.fill_(torch.nan if tensor.is_floating_point() else True if tensor.dtype == torch.bool else 99)


class TapeRecorder:
    """Captures on tapes; counts them, and what is done with them."""

    def __init__(self) -> None:
        self.captures = self.replays = self.warm_ups = 0
        self.tapes: weakref.WeakSet[Tape] = weakref.WeakSet()  # those that somebody still holds

    def aside(self, step: Callable[[], None]) -> None:
        self.warm_ups += 1
        step()

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        tape = Tape()
        with tape:
            step()
        self.tapes.add(tape)

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return replay


def _again(function: Any, given: tuple[Any, Any], made: list[torch.Tensor]) -> None:
    for place, value in zip(made, _tensors(function(*given[0], **given[1])), strict=True):
        if _place(value) != _place(place):
            place.copy_(value)


def _refuse_what_waits(function: Any, args: Any, kwargs: dict[str, Any]) -> None:
    tensors, asked = _tensors((args, kwargs)), kwargs.get("device")
    copies = function.__name__.partition(".")[0] in ("_to_copy", "copy_")
    places = {each.device for each in tensors if each.dim() or copies}
    if copies and asked is not None:
        places.add(torch.device(asked))
    elsewhere = any(each.device.type != "cpu" for each in tensors)
    if len(places) > 1 or (elsewhere and not UNSHAPED.isdisjoint(function.tags)):
        raise RuntimeError(f"operation not permitted when stream is capturing: {function}")


def _tensors(values: Any) -> list[torch.Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, torch.Tensor)]


def _written(function: Any, args: Any, kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors that it writes to."""
    found = []
    for place, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            found += _tensors(value)
    return found


def _held(values: Any) -> Any:
    return tree_map_only(Elsewhere, lambda tensor: tensor.held, values)


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
