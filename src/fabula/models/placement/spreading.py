"""How a model's parts are spread over devices that have so much room."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from fabula.errors import OutOfMemoryError

__all__ = ["Spread", "spread_parts"]

Spread = Literal["auto", "balanced", "balanced_low_0", "sequential"]


def spread_parts(sizes: Sequence[int], room: Mapping[str, int | None], how: Spread) -> list[str]:
    """The device of each part, given the bytes that each takes; parts that follow each other lie together.

    `room`: the bytes of each GPU in their order, and of the CPU last if it may be used; None: no bound. "auto" and
    "balanced" give all GPUs about the same, "balanced_low_0" the first only what the others cannot hold, "sequential"
    each what it can hold before the next gets anything. The CPU gets what no GPU can hold.
    Raises OutOfMemoryError where that is too much.
    """
    devices = list(room)
    everywhere = _filled(sizes, list(room.values()))
    if everywhere is None:
        whole = ", ".join(f"{device} {bytes_shown(size)}" for device, size in room.items()) or "no device"
        raise OutOfMemoryError(
            f"a model of {bytes_shown(sum(sizes))} does not fit: {whole}. Allow more in `max_memory`, "
            "or load it in fewer bits."
        )
    gpus = [device for device in devices if device != "cpu"]
    limits = [room[device] for device in gpus]
    if not gpus or _filled(sizes, limits) is None or how == "sequential":
        return [devices[place] for place in everywhere]
    first = 1 if how == "balanced_low_0" and len(gpus) > 1 else 0
    places = _balanced(sizes, limits, first)
    return [gpus[place] for place in places]


def _balanced(sizes: Sequence[int], room: Sequence[int | None], first: int) -> list[int]:
    """The place of each part where the fullest from `first` on holds least; those before hold what these cannot."""
    before: list[int | None] = [0] * first
    if _filled(sizes, [*before, *room[first:]]) is None:
        before = _capped(room[:first], _least(sizes, lambda most: [*_capped(room[:first], most), *room[first:]]))
    most = _least(sizes, lambda most: [*before, *_capped(room[first:], most)])
    found = _filled(sizes, [*before, *_capped(room[first:], most)])
    assert found is not None
    return found


def _least(sizes: Sequence[int], room_at: Callable[[int], Sequence[int | None]]) -> int:
    """The least bound with which the room is enough."""
    low, high = 0, sum(sizes)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _filled(sizes, room_at(middle)) is not None else (middle + 1, high)
    return low


def _capped(room: Sequence[int | None], most: int) -> list[int | None]:
    return [most if size is None else min(most, size) for size in room]


def _filled(sizes: Sequence[int], room: Sequence[int | None]) -> list[int] | None:
    """The place of each part where each holds as many as it can before the next; None where they do not fit."""
    found: list[int] = []
    place, used = 0, 0
    for size in sizes:
        while place < len(room) and not _holds(room[place], used + size):
            place, used = place + 1, 0
        if place == len(room):
            return None
        used += size
        found.append(place)
    return found


def _holds(room: int | None, size: int) -> bool:
    return room is None or size <= room


def bytes_shown(size: int | None) -> str:
    """A number of bytes as people read it."""
    if size is None:
        return "any amount"
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"
