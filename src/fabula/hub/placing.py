"""Who computes a model, and where: what `device_map`, `max_memory` and `backend` come to for a checkpoint."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from math import prod

from fabula.errors import ArgumentError, NotSupportedError
from fabula.hub.arguments import LoadOptions
from fabula.hub.backends import BACKENDS, check_installed
from fabula.models.families.family import Family
from fabula.models.placement.maps import parts_of, places_of
from fabula.models.placement.spreading import spread_parts
from fabula.models.weights.table import all_entries, stored_name, stored_names
from fabula.quant.formats import StoredTensor

__all__ = ["backend_of", "device_of", "places_in"]

SHARE = 0.9  # of a GPU's free memory that weights take unless `max_memory` says; the rest is for keys and values

Places = str | dict[str, str]  # one device, or that of each weight


def device_of(options: LoadOptions) -> str:
    """The device that decides who computes: "auto" is the first GPU that the framework sees, if it is there."""
    if options.modules is not None:
        return next((device for device in options.modules.values() if device != "cpu"), "cpu")
    if options.device != "auto":
        return options.device
    backend = BACKENDS.get(options.backend or "torch")
    if backend is None or set(options.max_memory or ()) == {"cpu"}:
        return "cpu"
    return str(backend.devices.best_device()) if all(map(importlib.util.find_spec, backend.packages)) else "cpu"


def backend_of(options: LoadOptions, device: str, family: Family) -> str:
    """Who computes: what was asked for, native on a CPU, torch elsewhere. Raises what makes that impossible."""
    backend = options.backend or ("native" if device == "cpu" else "torch")
    if backend == "native" and device != "cpu":
        raise ArgumentError(f"`backend` 'native' computes on the CPU only, got device {device!r}. Use backend='torch'.")
    if backend != "native":
        check_installed(backend, family)
    return backend


def places_in(
    backend: str, options: LoadOptions, family: Family, tensors: Mapping[str, StoredTensor], dtype: str
) -> Places:
    """Where the weights go: all together, or in PyTorch each on a device of its own.

    Raises ArgumentError for devices that are not here and for maps that leave something out, OutOfMemoryError where
    there is no room, NotSupportedError for several devices in another framework.
    """
    if options.modules is not None:
        places = places_of(family, stored_names(family, tensors), options.modules)
    elif options.max_memory is not None or (options.device == "auto" and backend == "torch"):
        places = _spread(backend, options, family, tensors, dtype)
    else:
        places = {"": device_of(options)}
    devices = list(dict.fromkeys(places.values()))
    if backend != "torch" and len(devices) > 1:
        raise NotSupportedError(
            f"`device_map` must place the whole model on one device for backend {backend!r}, got {', '.join(devices)}. "
            "Use backend='torch'."
        )
    for device in devices if backend != "native" else ():
        BACKENDS[backend].devices.check_device(device)
    return places if len(devices) > 1 else devices[0]


def _spread(
    backend: str, options: LoadOptions, family: Family, tensors: Mapping[str, StoredTensor], dtype: str
) -> dict[str, str]:
    """The device of each weight, by the room that there is."""
    room, sizes = _room(backend, options), _sizes(backend, family, tensors, dtype)
    if not room.keys() - {"cpu"} and options.max_memory is None:
        return {"": device_of(options)}
    parts = parts_of(family)
    weights = [sum(sizes.get(name, 0) for name in part.weights) for part in parts]
    devices = spread_parts(weights, room, options.spread)
    return {name: device for part, device in zip(parts, devices, strict=True) for name in part.weights if name in sizes}


def _room(backend: str, options: LoadOptions) -> dict[str, int | None]:
    """Bytes by device, GPUs first; the CPU without a bound unless `max_memory` sets one."""
    asked = options.max_memory
    if backend not in ("native", "torch"):
        raise NotSupportedError(
            f"`max_memory` spreads models of backend 'torch', got backend {backend!r}. Leave it out."
        )
    free: dict[str, int] = BACKENDS["torch"].devices.free_memory() if backend == "torch" else {}
    if asked is None:
        return {**{device: int(SHARE * size) for device, size in free.items()}, "cpu": None}
    for device in asked:
        if device != "cpu" and device not in free:
            raise ArgumentError(
                f"`max_memory` must name GPUs that PyTorch finds here, or 'cpu', got {device!r}. Leave it out."
            )
    return {device: min(size, free.get(device, size)) for device, size in asked.items()}


def _sizes(backend: str, family: Family, tensors: Mapping[str, StoredTensor], dtype: str) -> dict[str, int]:
    """The bytes that each weight takes, by its name in the weight table."""
    names = stored_names(family, tensors)
    entries = [entry for _, entry in all_entries(family) if entry.name in names]
    if backend == "native":
        return {entry.name: tensors[stored_name(entry.name, tensors) or ""].data.nbytes for entry in entries}
    return {entry.name: prod(entry.shape) * (4 if dtype == "float32" else 2) for entry in entries}
