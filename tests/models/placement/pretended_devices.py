"""GPUs that are none: tensors that say where they are, compute on the CPU, and raise where devices meet."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")


class Elsewhere(torch.Tensor):
    """The numbers of a tensor on the CPU, as if they were on another device."""

    held: torch.Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, held: torch.Tensor, device: torch.device) -> Elsewhere:
        form = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, held.size(), device="meta", dispatch_device=True, **form)

    def __init__(self, held: torch.Tensor, device: torch.device) -> None:
        self.held, self.place = held, device

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __getitem__(self, key: Any) -> torch.Tensor:
        """Without PyTorch's own way of indexing, which looks for the device."""
        _check(torch.Tensor.__getitem__, [self, *_tensors(key)])
        return Elsewhere(self.held[_held(key)], self.place)

    def __setitem__(self, key: Any, value: Any) -> None:
        _check(torch.Tensor.__setitem__, [self, *_tensors(key), *_tensors(value)])
        self.held[_held(key)] = _held(value)

    def copy_(self, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:  # type: ignore[override]
        """Likewise."""
        return torch.ops.aten.copy_.default(self, source, non_blocking)

    def __invert__(self) -> torch.Tensor:
        return torch.bitwise_not(self)

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(function, args, kwargs or {})


class PretendedDevices(TorchDispatchMode):
    """While active, tensors can be made on GPUs that are not there."""

    def __enter__(self) -> PretendedDevices:
        self._before = torch.cuda._lazy_init, torch._C._only_lift_cpu_tensors()
        torch.cuda._lazy_init = lambda: None  # nothing to begin with
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor() makes its numbers on the CPU, and sends them
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.cuda._lazy_init = self._before[0]
        torch._C._set_only_lift_cpu_tensors(self._before[1])

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(function, args, kwargs or {})


def _computed(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What the function gives on the CPU, on the device where it would be. Raises RuntimeError where devices meet."""
    if function is torch.ops.prim.device.default:
        return args[0].place
    if "pin_memory" in function.__name__:
        return args[0]
    given, name, asked = _tensors((args, kwargs)), function.__name__.partition(".")[0], kwargs.get("device")
    home = given[0].device if name in ("copy_", "_to_copy") else _check(function, given)
    target = home if asked is None else torch.device(asked)
    wrappers = {id(tensor.held): tensor for tensor in given if isinstance(tensor, Elsewhere)}
    here = {**kwargs, "device": CPU} if asked is not None else kwargs
    result = function(*_held(args), **_held(here))

    def there(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) in wrappers:
            return wrappers[id(tensor)]
        return tensor if target == CPU else Elsewhere(tensor, target)

    return _mapped(there, result)


def _check(function: Any, given: list[torch.Tensor]) -> torch.device:
    """The device of them all, numbers on the CPU aside."""
    devices = {tensor.device for tensor in given if tensor.dim() or tensor.device != CPU}
    if len(devices) > 1:
        raise RuntimeError(f"{function} got tensors on {', '.join(sorted(map(str, devices)))}")
    return next(iter(devices), CPU)


def _tensors(values: Any) -> list[torch.Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(values, torch.Tensor):
        return [values]
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, (tuple, list)) else ()
    return [tensor for value in inner for tensor in _tensors(value)]


def _mapped(function: Any, values: Any) -> Any:
    """The same nested, with each tensor as the function makes it."""
    if isinstance(values, torch.Tensor):
        return function(values)
    if isinstance(values, dict):
        return {name: _mapped(function, value) for name, value in values.items()}
    return type(values)(_mapped(function, value) for value in values) if type(values) in (tuple, list) else values


def _held(values: Any) -> Any:
    return _mapped(lambda tensor: tensor.held if isinstance(tensor, Elsewhere) else tensor, values)
