"""Runs a family's layers in JAX: patterns that repeat are one compiled loop, so that depth costs no compile time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import jax

from fabula.ops.jax import Inputs, JaxOps, Shared
from fabula.ops.jax_sources import Place, Source, places_of
from fabula.ops.layer_groups import groups_of
from fabula.ops.periods import Period, shortened

Array = jax.Array

__all__ = ["Passed", "run_layers"]


@dataclass(slots=True)
class Passed:
    """What a pass through layers leaves; T positions of which S are scored."""

    x: Array  # Float["T D"]
    states: dict[int, Array] = field(default_factory=dict)  # tapped layer -> Float["S D"]; 0: what went in
    attentions: dict[int, Array] = field(default_factory=dict)  # tapped layer -> Float["R heads N K"]
    memory_attentions: dict[int, Array] = field(default_factory=dict)  # the same over an encoder's columns


@dataclass(frozen=True, slots=True)
class _Runner:
    """What the blocks of a pass share."""

    family: Any
    inputs: Inputs
    shared: Shared
    source: Source
    places: Sequence[Place]
    states: Collection[int]
    attentions: Collection[int]
    prepared: Callable[[Mapping[str, Any]], SimpleNamespace]

    def block(self, x: Array, weights: Mapping[str, Any], layer: int, place: Place) -> tuple[Array, dict[str, Array]]:
        """One layer, as the family's layer of this number; and what is tapped of it, if any of its pattern is."""
        ops = JaxOps(self.inputs, self.shared, self.source, place)
        x = self.family.block(ops, x, self.prepared(weights), self.family.layers[layer])
        assert ops.weights is not None
        found = {"state": ops.scored(x), "attention": ops.weights}
        return x, found if ops.memory_weights is None else {**found, "memory": ops.memory_weights}

    def wanted(self, layers: Collection[int]) -> list[str]:
        """What is tapped of some of these layers."""
        kinds = []
        if any(layer + 1 in self.states for layer in layers):
            kinds.append("state")
        if any(layer in self.attentions for layer in layers):
            kinds += ["attention"] if self.inputs.memory is None else ["attention", "memory"]
        return kinds

    def keep(self, passed: Passed, layer: int, found: Mapping[str, Array]) -> None:
        """Puts what is tapped of a layer where it belongs."""
        if layer + 1 in self.states:
            passed.states[layer + 1] = found["state"]
        if layer in self.attentions:
            passed.attentions[layer] = found["attention"]
            if "memory" in found:
                passed.memory_attentions[layer] = found["memory"]


def run_layers(
    family: Any,
    inputs: Inputs,
    source: Source,
    x: Array,
    found: Sequence[Period],
    stacks: Sequence[Sequence[Mapping[str, Any]]],
    prepared: Callable[[Mapping[str, Any]], SimpleNamespace],
    *,
    states: Collection[int] = (),
    attentions: Collection[int] = (),
    last: int | None = None,
) -> Passed:
    """x after the first `last` layers (None: all); `source` holds their keys and values.

    `stacks`: for each period and each place of its pattern the fields' weights, with a first axis of repeats where
    there are several; `prepared` makes of one layer's what the family sees. `states` and `attentions`: which layers'
    outputs (0: x itself) and weights are wanted.
    """
    shared, places = Shared(inputs, family.layers, source, x.dtype), places_of(groups_of(family.layers))
    runner = _Runner(family, inputs, shared, source, places, states, attentions, prepared)
    passed = Passed(x)
    if 0 in states:
        passed.states[0] = JaxOps(inputs, shared, source).scored(x)
    for period, stack in zip(found, stacks, strict=False):
        for part in shortened([period], last):
            if part.repeats > 1:
                _looped(runner, passed, part, [_first(weights, part.repeats, period) for weights in stack])
            else:
                _unrolled(runner, passed, part, period, stack)
    return passed


def _unrolled(
    runner: _Runner, passed: Passed, part: Period, period: Period, stack: Sequence[Mapping[str, Any]]
) -> None:
    """The layers of a part one after the other."""
    for layer in range(part.start, part.end):
        turn, place = divmod(layer - period.start, period.length)
        weights = stack[place] if period.repeats == 1 else jax.tree.map(lambda w, turn=turn: w[turn], stack[place])
        passed.x, found = runner.block(passed.x, weights, layer, runner.places[layer])
        runner.keep(passed, layer, found)


def _looped(runner: _Runner, passed: Passed, part: Period, stack: Sequence[Mapping[str, Any]]) -> None:
    """The pattern's blocks as the body of a loop over its repeats."""
    wanted = [runner.wanted(part.layers(place)) for place in range(part.length)]
    source = runner.source

    def turn(carry: tuple[Array, Any, Array], weights: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
        x, source.state, index = carry
        kept = []
        for place in range(part.length):
            first = runner.places[part.start + place]
            stride = _stride(runner.places, part, place)
            where = Place(first.group, first.layer + index * stride)
            x, found = runner.block(x, weights[place], part.start + place, where)
            kept.append({kind: found[kind] for kind in wanted[place]})
        return (x, source.state, index + 1), kept

    start = (passed.x, source.state, jax.numpy.int32(0))
    (passed.x, source.state, _), kept = jax.lax.scan(turn, start, list(stack))
    for place in range(part.length):
        for repeat, layer in enumerate(part.layers(place)):
            runner.keep(passed, layer, {kind: values[repeat] for kind, values in kept[place].items()})


def _stride(places: Sequence[Place], part: Period, place: int) -> int:
    """How far apart a layer's place is from that of the same layer one repeat later."""
    layers = part.layers(place)
    return int(places[layers[1]].layer - places[layers[0]].layer)


def _first(weights: Mapping[str, Any], repeats: int, period: Period) -> Mapping[str, Any]:
    """The stacks of the first repeats."""
    return weights if repeats == period.repeats else jax.tree.map(lambda w: w[:repeats], weights)
