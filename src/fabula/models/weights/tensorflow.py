"""A checkpoint's tensors as variables of TensorFlow: those of layers that repeat are stacked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from fabula.errors import ArgumentError
from fabula.models.families.family import Entry, Stack
from fabula.models.weights.table import find_tensor, placed_entries, served_by_another
from fabula.ops.periods import Period, layer_kinds, periods
from fabula.quant.formats import StoredTensor
from fabula.quant.lazy import LazyTensors

Tensor = Any  # a tf.Tensor
Field = tuple[int | None, str]  # a layer, None outside of them, and a field of the weight table

FORMATS = {tf.float32: "F32", tf.bfloat16: "BF16", tf.float16: "F16"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a weight is kept."""

    variable: tf.Variable
    index: int | None  # along the variable's first axis; None: it is the whole of it


class Weights:
    """The variables of a stack's weight table, matrices as [out, in]."""

    def __init__(self, family: Stack, placed: Mapping[Field, Place | None], repeating: tuple[Period, ...]) -> None:
        self.family = family
        self.periods = repeating
        self._placed = placed

    @property
    def outside(self) -> SimpleNamespace:
        """The weights outside the layers, by field."""
        return SimpleNamespace(**{field: weight_of(place) for field, place in self.places(None).items()})

    def layer(self, number: int, turn: Tensor) -> SimpleNamespace:
        """The weights of the layer that lies `turn` repeats behind this one, by field; inside a trace."""
        return SimpleNamespace(**{field: weight_of(place, turn) for field, place in self.places(number).items()})

    def places(self, layer: int | None) -> dict[str, Place | None]:
        """Where the weights of a layer are, or those outside of the layers, by field."""
        return {field: place for (number, field), place in self._placed.items() if number == layer}

    def variables(self) -> dict[str, tf.Variable]:
        """Each variable once, under the name of what it holds first."""
        found: dict[int, tuple[str, tf.Variable]] = {}
        for name, _, place in self.named():
            found.setdefault(id(place.variable), (name, place.variable))
        return dict(found.values())

    def named(self) -> Iterator[tuple[str, Entry, Place]]:
        """Every weight that is kept under a name of its own: the name, its entry, its place."""
        known = set()
        for layer, field, entry in placed_entries(self.family):
            place = self._placed.get((layer, field))
            if place is not None and (key := (id(place.variable), place.index)) not in known:
                known.add(key)
                yield entry.name, entry, place


def read_weights(
    family: Stack, tensors: Mapping[str, StoredTensor], dtype: tf.DType, other: Weights | None = None
) -> Weights:
    """The weights of a checkpoint, packed ones dequantized. Raises ModelFileError for weights that do not fit.

    `other`: those of the family's other stack, whose variables serve where the names are the same.
    """
    found, tied = _found(family, tensors)
    known = {} if other is None else {name: place for name, _, place in other.named()}
    shapes = [
        {field: None if one is None else one[0].shape for (place, field), one in found.items() if place == layer.index}
        for layer in family.layers
    ]
    placed = _alone(family, found, dtype, known)
    repeating = periods(layer_kinds(family.layers, shapes))
    for period in repeating:
        for place in range(period.length):
            layers = period.layers(place)
            for field in (name for name in shapes[layers[0]] if (layers[0], name) not in placed):
                placed |= _stacked(found, layers, field, dtype)
    placed |= {(layer, field): placed[layer, other] for layer, field, other in tied}
    return Weights(family, placed, repeating)


def tensorflow_dtype(dtype: Any) -> tf.DType:
    """The floating-point type of this name; raises ArgumentError for any that models do not compute in."""
    name = getattr(dtype, "name", None) or str(dtype)
    known = {"float32": tf.float32, "bfloat16": tf.bfloat16, "float16": tf.float16}
    if name not in known:
        raise ArgumentError(f"`dtype` must be float32, bfloat16 or float16, got {dtype!r}. Use one of them.")
    return known[name]


class StoredWeights(LazyTensors):
    """The weights as they are now, under the checkpoint's names, in its shapes; read when they are asked for."""

    def __init__(self, *stacks: Weights) -> None:
        self._places = {name: (entry, place) for weights in stacks for name, entry, place in weights.named()}
        super().__init__(self._places)

    def __getitem__(self, name: str) -> StoredTensor:
        entry, place = self._places[name]
        whole = place.variable if place.index is None else place.variable[place.index]
        value = np.asarray(whole.numpy())
        value = np.ascontiguousarray(value.T if entry.transposed else value)
        kind = FORMATS[place.variable.dtype]
        return StoredTensor(name, kind, tuple(value.shape), value.reshape(-1).view(np.uint8))


_Found = dict[Field, tuple[StoredTensor, Entry] | None]


def _found(family: Stack, tensors: Mapping[str, StoredTensor]) -> tuple[_Found, list[tuple[int | None, str, str]]]:
    """The stored tensor of each field, and the fields for which another one stands."""
    found: _Found = {}
    tied = []
    for layer, field, entry in placed_entries(family):
        if served_by_another(family, entry, tensors):
            assert entry.tied is not None
            tied.append((layer, field, entry.tied))
        else:
            stored = find_tensor(family, entry, tensors)
            found[layer, field] = None if stored is None else (stored, entry)
    return found, tied


def _alone(family: Stack, found: _Found, dtype: tf.DType, known: dict[str, Place]) -> dict[Field, Place | None]:
    """The weights outside the layers and those that all layers have in common, each name once; `known` has some."""
    inside = [entry.name for layer in family.layers for entry in family.layer_weights(layer).values()]
    common = {name for name in inside if "{layer}" not in name}
    placed: dict[Field, Place | None] = {}
    for (layer, field), one in found.items():
        name = "" if one is None else one[1].name
        if layer is not None and name not in common:
            continue
        if one is not None and name not in known:
            known[name] = Place(_variable([one], dtype, stacked=False), None)
        placed[layer, field] = known.get(name)
    return placed


def _stacked(found: _Found, layers: range, field: str, dtype: tf.DType) -> dict[Field, Place | None]:
    """The field of some layers as one variable."""
    parts = [found[layer, field] for layer in layers]
    given = [one for one in parts if one is not None]
    if not given:
        return {(layer, field): None for layer in layers}
    variable = _variable(given, dtype, stacked=True)
    return {(layer, field): Place(variable, index) for index, layer in enumerate(layers)}


def _variable(given: list[tuple[StoredTensor, Entry]], dtype: tf.DType, stacked: bool) -> tf.Variable:
    parts = [_array(stored, entry, dtype) for stored, entry in given]
    name = given[0][1].name.replace(".", "_")
    return tf.Variable(np.stack(parts) if stacked else parts[0], name=name, dtype=dtype)


def _array(stored: StoredTensor, entry: Entry, dtype: tf.DType) -> np.ndarray:
    """The weights in a type, as they are used: matrices [out, in]."""
    values = stored.dequantize()
    values = values.T if stored.transposed else values
    return np.ascontiguousarray(values.T if entry.transposed else values, dtype.as_numpy_dtype)


def weight_of(place: Place | None, turn: Tensor | None = None) -> Tensor | None:
    """A weight; inside a trace that of a layer so many repeats further."""
    if place is None:
        return None
    if place.index is None:
        return place.variable.read_value()
    return place.variable[place.index if turn is None else place.index + turn]
