"""Meshes of devices in JAX: arrays that lie on several are computed with where the compiler finds best."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

__all__ = ["automatic", "is_automatic", "mesh_of", "within"]


def mesh_of(arrays: Any) -> Any:
    """The mesh of several devices on which arrays of a tree lie; None where they are on one, or in a trace."""
    for array in jax.tree.leaves(arrays):
        sharding = None if isinstance(array, jax.core.Tracer) else getattr(array, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1:
            return sharding.mesh
    return None


def is_automatic(mesh: Any) -> bool:
    """Whether no axis of the mesh is part of arrays' types."""
    return all(str(kind) == "Auto" for kind in getattr(mesh, "axis_types", None) or ())


def automatic(mesh: Any) -> Mesh:
    """The mesh with axes that only the compiler looks at."""
    return mesh if is_automatic(mesh) else Mesh(mesh.devices, mesh.axis_names)


@contextmanager
def within(mesh: Mesh | None) -> Iterator[None]:
    """This mesh in place of one that the caller has set, whose axes could be part of types; None changes nothing."""
    setter = getattr(jax, "set_mesh", None)
    if mesh is None or setter is None:
        yield
        return
    with setter(mesh):
        yield
