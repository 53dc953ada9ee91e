"""What a module's answers depend on, as far as can be seen: its tensors, its parts, hooks and plain settings."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterator
from itertools import chain
from typing import Any

import torch

from fabula.cache.stamp import Stamp

__all__ = ["module_stamp"]

PLAIN = (bool, int, float, str, type(None))
FEW = 16  # entries of a list or mapping of settings that is looked at


def module_stamp(module: torch.nn.Module) -> Stamp:
    """What is another after a step of training, and after a part, a hook or a setting was changed.

    Adapters are switched by settings. A module that counts its calls is another after each of them.
    """
    parts = list(module.modules())
    slots = (one for part in parts for one in chain(part._parameters.values(), part._buffers.values()))
    tensors = [one for one in slots if one is not None]
    marks = chain(map(_of_tensor, tensors), map(_of_part, parts))
    return Stamp(tuple(marks), tuple(map(weakref.ref, [*tensors, *parts])))


def _of_tensor(tensor: torch.Tensor) -> Hashable:
    version = 0 if tensor.is_inference() else tensor._version
    return id(tensor), tensor.device, tensor.dtype, tensor.data_ptr(), version


def _of_part(part: torch.nn.Module) -> Hashable:
    return id(part), tuple(part._forward_hooks), tuple(part._forward_pre_hooks), tuple(_settings(part))


def _settings(part: torch.nn.Module) -> Iterator[tuple[str, Hashable]]:
    for name, value in vars(part).items():
        if isinstance(value, PLAIN):
            yield name, value
        elif isinstance(value, (list, tuple, set, dict)) and len(value) <= FEW:
            entries: Any = (*value, *value.values()) if isinstance(value, dict) else value
            if all(isinstance(entry, PLAIN) for entry in entries):
                yield name, repr(value)
