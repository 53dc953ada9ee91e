"""A family's weights in JAX: one array a field, of all layers that repeat a pattern where they do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as attribute
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fabula.errors import ArgumentError
from fabula.models.families.family import Entry, Stack
from fabula.models.weights.table import find_tensor, placed_entries, served_by_another
from fabula.ops.periods import Period, layer_kinds, periods
from fabula.quant.formats import StoredTensor

__all__ = ["Field", "Plan", "Weights", "jax_dtype", "plan_of", "present_in", "read_field"]

_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Field:
    """One array: a weight outside the layers, one layer's, or that of the layers at one place of a pattern."""

    name: str  # the checkpoint's name, of the first layer that it serves
    field: str  # the family's
    entry: Entry  # `name` has "{layer}" in it
    layers: tuple[int, ...] = ()  # in the order of the first axis; (): outside the layers

    @property
    def stacked(self) -> bool:
        """Whether the first axis is that of layers."""
        return len(self.layers) > 1

    @property
    def names(self) -> list[str]:
        """The checkpoint's names of what it holds."""
        return [self.entry.name.format(layer=layer) for layer in self.layers] if self.layers else [self.name]


@dataclass(frozen=True, slots=True)
class Plan:
    """All arrays of a family, and how its layers repeat."""

    outside: tuple[Field, ...]
    periods: tuple[Period, ...]
    stacks: tuple[tuple[tuple[Field, ...], ...], ...]  # of each period, of each place of its pattern
    entries: Mapping[str, Entry]  # all of the family's outside the layers, by field
    layer_entries: Mapping[str, Entry]  # and of a layer
    shared: tuple[Field, ...] = ()  # what all layers have in common

    def prepared_outside(self, weights: Mapping[str, Any]) -> SimpleNamespace:
        """What the family sees of the weights outside the layers: tied ones under both fields."""
        found = _prepared(self.entries, weights)
        for field, entry in self.entries.items():
            if found[field] is None and entry.tied is not None:
                found[field] = found[entry.tied]
        return SimpleNamespace(**found)

    def prepared(self, shared: Mapping[str, Any], weights: Mapping[str, Any]) -> SimpleNamespace:
        """What the family sees of one layer's weights: matrices as [out, in], absent ones as None."""
        return SimpleNamespace(**_prepared(self.layer_entries, {**shared, **weights}))

    def turned(self, weights: Weights) -> tuple[Plan, Weights]:
        """The same with all matrices of layers stored as [out, in]."""

        def own(part: Mapping[str, Any]) -> dict[str, Any]:
            return {
                field: jnp.swapaxes(weight, -1, -2) if self.layer_entries[field].transposed else weight
                for field, weight in part.items()
            }

        entries = {field: replace(entry, transposed=False) for field, entry in self.layer_entries.items()}
        stacks = tuple(tuple(map(own, stack)) for stack in weights.stacks)
        return replace(self, layer_entries=entries), Weights(weights.outside, stacks, own(weights.shared))

    def fields(self) -> Iterator[Field]:
        """Every array."""
        yield from self.outside
        yield from self.shared
        for stack in self.stacks:
            for place in stack:
                yield from place


@dataclass(frozen=True, slots=True)
class Weights:
    """The arrays under the family's field names; those that are stored [in, out] as [out, in]. A pytree."""

    outside: dict[str, Any]
    stacks: tuple[tuple[dict[str, Any], ...], ...]
    shared: dict[str, Any] = attribute(default_factory=dict)


jax.tree_util.register_dataclass(Weights, data_fields=["outside", "stacks", "shared"], meta_fields=[])


def plan_of(family: Stack, present: Mapping[str, bool]) -> Plan:
    """The arrays of a family of whose weights, by the checkpoint's names, those are present."""
    outside = tuple(
        Field(entry.name, field, entry) for field, entry in family.weights().items() if present.get(entry.name, False)
    )
    every = {name: entry for layer in family.layers for name, entry in family.layer_weights(layer).items()}
    shared = tuple(Field(entry.name, name, entry) for name, entry in every.items() if "{layer}" not in entry.name)
    common = {one.field for one in shared}
    entries = [
        {
            name: entry
            for name, entry in family.layer_weights(layer).items()
            if name not in common and present.get(entry.name.format(layer=layer.index), False)
        }
        for layer in family.layers
    ]
    found = periods(layer_kinds(family.layers, [{f: e.shape for f, e in fields.items()} for fields in entries]))
    stacks = tuple(
        tuple(_fields(entries[period.start + place], tuple(period.layers(place))) for place in range(period.length))
        for period in found
    )
    return Plan(outside, found, stacks, dict(family.weights()), every, shared)


def _prepared(entries: Mapping[str, Entry], weights: Mapping[str, Any]) -> dict[str, Any]:
    """In a trace, where turning a matrix moves nothing."""
    turned = {field: weight.T if entries[field].transposed else weight for field, weight in weights.items()}
    return {field: turned.get(field) for field in entries}


def _fields(entries: Mapping[str, Entry], layers: tuple[int, ...]) -> tuple[Field, ...]:
    return tuple(Field(entry.name.format(layer=layers[0]), field, entry, layers) for field, entry in entries.items())


def present_in(family: Stack, tensors: Mapping[str, StoredTensor]) -> dict[str, bool]:
    """Which names are weights of their own. Raises ModelFileError for one that is missing or misshapen."""
    return {
        entry.name: not served_by_another(family, entry, tensors) and find_tensor(family, entry, tensors) is not None
        for _, _, entry in placed_entries(family)
    }


def jax_dtype(dtype: Any) -> Any:
    """The floating-point type of this name; raises ArgumentError for any that models do not compute in."""
    name = getattr(dtype, "__name__", None) or str(dtype)
    if name not in _DTYPES:
        raise ArgumentError(f"`dtype` must be float32, bfloat16 or float16, got {dtype!r}. Use one of them.")
    return jnp.dtype(name)


def read_field(family: Stack, field: Field, tensors: Mapping[str, StoredTensor], dtype: Any) -> np.ndarray:
    """One array on the host, packed weights dequantized, in the checkpoint's shape behind the axis of layers."""
    shape = (len(field.layers), *field.entry.shape) if field.stacked else field.entry.shape
    array = np.empty(shape, dtype)
    for place, name in enumerate(field.names):
        stored = find_tensor(family, Entry(name, field.entry.shape), tensors)
        assert stored is not None
        values = stored.dequantize()
        target = array[place] if field.stacked else array
        target[...] = (values.T if stored.transposed else values).reshape(field.entry.shape)
    return array
