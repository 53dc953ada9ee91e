"""`device_map` and `max_memory` as people write them: numbers are GPUs, sizes have units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fabula.errors import ArgumentError, NotSupportedError

__all__ = ["SPREADS", "read_device", "read_max_memory", "read_modules"]

SPREADS = ("auto", "balanced", "balanced_low_0", "sequential")
_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|npu|hpu)(:\d{1,3})?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) *(KIB|MIB|GIB|TIB|KB|MB|GB|TB)")
_UNITS = MappingProxyType(
    {
        **{f"{letter}IB": 1 << 10 * (place + 1) for place, letter in enumerate("KMGT")},
        **{f"{letter}B": 1000 ** (place + 1) for place, letter in enumerate("KMGT")},
    }
)


def read_device(value: Any) -> str:
    """A device's name; a number is a GPU's. Raises ArgumentError, and NotSupportedError for the disk."""
    if isinstance(value, bool) or not (isinstance(value, (str, int)) or hasattr(value, "type")):
        raise ArgumentError(f"`device_map` must be 'auto', a device, or a mapping to devices, got {value!r}.")
    name = f"cuda:{value}" if isinstance(value, int) else str(value)
    if name == "disk":
        raise NotSupportedError(
            "`device_map` must not place anything on 'disk': weights compute where they lie. "
            "Use 'cpu', whose weights are read from the file once."
        )
    if not _DEVICE.fullmatch(name):
        raise ArgumentError(f"`device_map` must be 'auto', 'cpu', 'cuda', 'cuda:0' or another device, got {value!r}.")
    return "cpu" if name == "cpu:0" else name


def read_modules(given: Mapping[Any, Any]) -> dict[str, str]:
    """The device of each module that a mapping names, "" meaning all; GPUs with their numbers."""
    if not given:
        raise ArgumentError("`device_map` must name modules and their devices, got an empty mapping. Use 'auto'.")
    found = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise ArgumentError(f"`device_map` must map the names of modules to devices, got the name {name!r}.")
        found[name] = _numbered(read_device(value))
    return found


def read_max_memory(given: Any, device: str) -> dict[str, int] | None:
    """Bytes by device, GPUs first. Raises ArgumentError for sizes and devices that are none, and without "auto"."""
    if given is None:
        return None
    if not isinstance(given, Mapping) or not given:
        raise ArgumentError(
            f"`max_memory` must map devices to sizes, got {given!r}. Try {{0: '20GiB', 'cpu': '60GiB'}}."
        )
    if device not in SPREADS:
        raise ArgumentError(
            f"`max_memory` must come with one of the device maps {', '.join(map(repr, SPREADS))}, got {device!r}. "
            "Leave it out, or use 'auto'."
        )
    if "disk" in given:
        raise NotSupportedError("`max_memory` must not name 'disk': weights compute where they lie. Use 'cpu'.")
    sizes = {_numbered(read_device(name)): _bytes(name, size) for name, size in given.items()}
    return dict(sorted(sizes.items(), key=lambda pair: (pair[0] == "cpu", len(pair[0]), pair[0])))


def _numbered(device: str) -> str:
    return "cuda:0" if device == "cuda" else device


def _bytes(name: Any, size: Any) -> int:
    """A size as a number of bytes."""
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    match = _SIZE.fullmatch(size.upper()) if isinstance(size, str) else None
    if match is None:
        raise ArgumentError(f"`max_memory` must hold bytes or sizes such as '20GiB', got {size!r} for {name!r}.")
    return int(float(match[1]) * _UNITS[match[2]])
