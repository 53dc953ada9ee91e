"""The repeating patterns of a model's layers, so that a program is compiled for a pattern and not for every layer."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fabula.ops.specs import LayerSpec

__all__ = ["Period", "layer_kinds", "periods", "shortened"]

LOOP = 1  # what compiling one more loop costs, in layers


@dataclass(frozen=True, slots=True)
class Period:
    """Layers [start, start + length * repeats): a pattern of `length` layers, so many times. One that stands alone
    has the length 1 and one repeat.
    """

    start: int
    length: int
    repeats: int

    @property
    def end(self) -> int:
        """The layer behind the last."""
        return self.start + self.length * self.repeats

    def layers(self, place: int) -> range:
        """The layers at one place of the pattern."""
        return range(self.start + place, self.end, self.length)


def layer_kinds(layers: Sequence[LayerSpec], weights: Sequence[Mapping[str, Any]]) -> list[Hashable]:
    """What layers of one program must share: all of their spec but the index, and their weights' fields and shapes.

    `weights`: for each layer, its fields and what is to be equal of each, such as the shape.
    """
    shared = [tuple(sorted(fields.items())) for fields in weights]
    return [(replace(layer, index=0), fields) for layer, fields in zip(layers, shared, strict=True)]


def periods(kinds: Sequence[Hashable]) -> tuple[Period, ...]:
    """Patterns that make up the layers, such that as few layers as possible have to be compiled."""
    count = len(kinds)
    cheapest: list[tuple[int, tuple[Period, ...]]] = [(0, ())] * (count + 1)
    for start in range(count - 1, -1, -1):
        found = [(1 + cheapest[start + 1][0], Period(start, 1, 1))]
        for length in range(1, (count - start) // 2 + 1):
            most = _repeats(kinds, start, length)
            loops = (Period(start, length, repeats) for repeats in range(2, most + 1))
            found += [(length + LOOP + cheapest[loop.end][0], loop) for loop in loops]
        cost, first = min(found, key=lambda one: (one[0], -one[1].repeats * one[1].length, one[1].length))
        cheapest[start] = (cost, (first, *cheapest[first.end][1]))
    return cheapest[0][1]


def shortened(found: Sequence[Period], last: int | None) -> tuple[Period, ...]:
    """The patterns of the first `last` layers (None: of all), cut to whole repeats; what is left over stands alone."""
    kept: list[Period] = []
    for period in found:
        inside = period.length * period.repeats if last is None else min(period.end, last) - period.start
        if inside <= 0:
            break
        whole = inside // period.length
        if whole:
            kept.append(replace(period, repeats=whole))
        kept += [Period(layer, 1, 1) for layer in range(period.start + whole * period.length, period.start + inside)]
    return tuple(kept)


def _repeats(kinds: Sequence[Hashable], start: int, length: int) -> int:
    """How many times the `length` layers from `start` on come one after the other."""
    end = start + length
    while end < len(kinds) and kinds[end] == kinds[end - length]:
        end += 1
    return (end - start) // length
