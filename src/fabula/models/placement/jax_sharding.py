"""Weights over several devices in JAX: which axis of each is cut, by the names of a mesh, and where the cache goes."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fabula.arrays.jax_meshes import automatic, is_automatic, mesh_of
from fabula.errors import ArgumentError
from fabula.models.weights.jax import Field, Weights

__all__ = ["Settled", "cache_sharding", "field_sharding"]

# What the second half of a pair of matrices reads lies where the first wrote it, so that one sum a pair is exchanged.
INWARD = ("o", "down")


def field_sharding(mesh: Mesh, axis: str, field: Field) -> NamedSharding:
    """A matrix cut along what comes out of it, or what goes in; what does not divide, and vectors, are everywhere.

    Shoeybi et al. 2019, section 3. Raises ArgumentError for an axis that the mesh does not have.
    """
    if axis not in mesh.shape:
        raise ArgumentError(f"`axis` must be one of {list(mesh.shape)}, the mesh's, got {axis!r}.")
    shape = field.entry.shape
    if len(shape) < 2:
        return NamedSharding(mesh, PartitionSpec())
    inward = field.field in INWARD
    cut = int(inward != field.entry.transposed)  # stored [out, in], or turned
    if shape[cut] % mesh.shape[axis]:
        return NamedSharding(mesh, PartitionSpec())
    names = [None] * (len(shape) + field.stacked)
    names[cut + field.stacked] = axis  # type: ignore[call-overload]
    return NamedSharding(mesh, PartitionSpec(*names))


def cache_sharding(weights: Weights, heads: int) -> NamedSharding | None:
    """Where keys and values [layers, slots, heads, features] go: as the keys' weights are cut, if heads divide.

    None for weights on one device.
    """
    mesh = mesh_of(weights)
    if mesh is None:
        return None
    keys = next((place["k"] for stack in weights.stacks for place in stack if "k" in place), None)
    spec = keys.sharding.spec if keys is not None and isinstance(keys.sharding, NamedSharding) else ()
    axis = next((name for name in spec if isinstance(name, str)), None)
    whole = axis is None or heads % mesh.shape[axis]
    return NamedSharding(mesh, PartitionSpec() if whole else PartitionSpec(None, None, axis))


class Settled:
    """Arrays on meshes whose axes are part of types, as the same on a mesh where the compiler decides."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, Any]] = {}  # id -> (array, the same on the other mesh)

    def __call__(self, array: Any) -> Any:
        """The array that is computed with."""
        sharding = getattr(array, "sharding", None)
        if isinstance(array, jax.core.Tracer) or not isinstance(sharding, NamedSharding) or is_automatic(sharding.mesh):
            return array
        known = self._known.get(id(array))
        if known is None or known[0] is not array:
            moved = jax.device_put(array, NamedSharding(automatic(sharding.mesh), sharding.spec))
            self._known[id(array)] = known = (array, moved)
        return known[1]
