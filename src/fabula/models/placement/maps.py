"""Which device each weight lies on, from a map that names modules as transformers does."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from fabula.errors import ArgumentError, NotSupportedError
from fabula.models.families.family import Entry, Family, Stack

__all__ = ["Part", "device_map_of", "parts_of", "places_of"]

LATER = ("norm", "norm_bias", "head")  # fields outside the layers that what comes before the layers is not made of
_WITHOUT_WEIGHTS = ("rotary_emb", "rotary_emb_local", "drop", "dropout")  # modules of transformers that hold none


@dataclass(frozen=True, slots=True)
class Part:
    """What lies on one device: a layer, or what comes before the layers, or the last norm, or the head."""

    modules: tuple[str, ...]  # their names, "model.layers.0" of a layer
    weights: tuple[str, ...]  # the names of their weights


def parts_of(family: Family) -> list[Part]:
    """The family's parts in the order in which they compute; a weight that several use is its first user's."""
    found = [Part(*_modules(entry.name for stack in family.stacks for entry in _tables(stack)))]
    known = set(found[0].weights)
    for stack in family.stacks:
        for part in _stack_parts(stack):
            own = tuple(name for name in part.weights if name not in known)
            known.update(own)
            found += [Part(part.modules, own)] if own else []
    return found


def _stack_parts(stack: Stack) -> Iterator[Part]:
    """Those behind the embeddings."""
    outside = stack.weights()
    for layer in stack.layers:
        entries = stack.layer_weights(layer).values()
        names = tuple(entry.name.format(layer=layer.index) for entry in entries)
        yield Part((_layer(entries, layer.index),), names)
    for fields in (LATER[:2], LATER[2:]):
        yield Part(*_modules(outside[field].name for field in fields if field in outside))


def _tables(stack: Stack) -> list[Entry]:
    """What is before the layers."""
    return [entry for field, entry in stack.weights().items() if field not in LATER]


def _modules(weights: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The modules of the weights, and these, each once."""
    names = tuple(dict.fromkeys(weights))
    return tuple(dict.fromkeys(map(_module, names))), names


def _layer(entries: Collection[Entry], index: int) -> str:
    """The name of a layer, all of whose own weights' names begin with it."""
    before = next(name for name in (entry.name.partition("{layer}")[0] for entry in entries) if name.endswith("."))
    return f"{before}{index}"


def _module(weight: str) -> str:
    return weight.rpartition(".")[0]


def places_of(family: Family, stored: Collection[str], devices: Mapping[str, str]) -> dict[str, str]:
    """The device of each weight of the family that is `stored`, all others being shared or absent.

    `devices`: of modules, by name; the longest name that a weight's begins with decides, and "" stands for all.
    Raises ArgumentError for a name that the family does not have, and for weights that have no place;
    NotSupportedError for a part that lies on several devices.
    """
    parts = parts_of(family)
    _check_names(parts, devices)
    found = {name: device for part in parts for name in part.weights if (device := _device(name, devices)) is not None}
    missing = sorted({_module(name) for part in parts for name in part.weights if name in stored and name not in found})
    if missing:
        raise ArgumentError(
            f"`device_map` must place every module, and does not place {_listed(missing)}. "
            "Name them, or add '' for whatever else there is."
        )
    for part in parts:
        _check_one_device(part, {name: found[name] for name in part.weights if name in stored})
    _warn_of_shared(family, stored, found)
    return {name: device for name, device in found.items() if name in stored}


def device_map_of(family: Family, devices: Mapping[str, str]) -> dict[str, int | str]:
    """The devices of weights as those of modules: GPUs as numbers, "" for all that lie together."""
    if len(set(devices.values())) == 1:
        return {"": _shown(next(iter(devices.values())))}
    return {
        module: _shown(devices[weight])
        for part in parts_of(family)
        for module in part.modules
        for weight in [next((name for name in part.weights if name.startswith(f"{module}.") and name in devices), None)]
        if weight is not None
    }


def _shown(device: str) -> int | str:
    kind, _, index = device.partition(":")
    return int(index or 0) if kind == "cuda" else device


def _device(weight: str, devices: Mapping[str, str]) -> str | None:
    names = [name for name in devices if name in ("", weight) or weight.startswith(f"{name}.")]
    return devices[max(names, key=len)] if names else None


def _check_names(parts: list[Part], devices: Mapping[str, str]) -> None:
    """Raises ArgumentError for a name that is no module's, with the nearest that is."""
    known = {""}
    for weight in (name for part in parts for name in part.weights):
        pieces = weight.split(".")
        known.update(".".join(pieces[:count]) for count in range(1, len(pieces) + 1))
    for name in devices:
        parent, _, last = name.rpartition(".")
        if name not in known and not (parent in known and last in _WITHOUT_WEIGHTS):
            near = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ArgumentError(f"`device_map` must name modules of the model, got {name!r}.{hint}")


def _check_one_device(part: Part, places: Mapping[str, str]) -> None:
    devices = sorted(set(places.values()))
    if len(devices) > 1:
        one = part.modules[0] if len(part.modules) == 1 else " with ".join(part.modules)
        raise NotSupportedError(
            f"`device_map` must place {one} on one device, got {', '.join(devices)}. Layers are placed whole."
        )


def _warn_of_shared(family: Family, stored: Collection[str], places: Mapping[str, str]) -> None:
    """A head that is the embeddings too computes where these lie."""
    outside = family.weights()
    head = outside["head"]
    if head.tied is None or head.name in stored or head.name not in places:
        return
    asked, own = places[head.name], places[outside[head.tied].name]
    if asked != own:
        both = f"{_module(head.name)} and {_module(outside[head.tied].name)}"
        warnings.warn(f"{both} share their weights, which lie on {own}: not on {asked} too.", stacklevel=2)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")
