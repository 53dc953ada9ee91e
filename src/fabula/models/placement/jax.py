"""Which devices JAX can compute on here."""

from __future__ import annotations

from typing import Any

import jax

from fabula.errors import ArgumentError


def best_device() -> str:
    """The kind of JAX's default device."""
    return str(jax.devices()[0].platform)


def check_device(device: str) -> None:
    """Raises ArgumentError for a device that JAX cannot compute on here."""
    device_named(device)


def device_named(device: str) -> Any:
    """The device of a name such as "cpu", "gpu" or "cuda:1". Raises ArgumentError where there is none."""
    kind, _, index = device.partition(":")
    try:
        return jax.devices(kind)[int(index or 0)]
    except (RuntimeError, IndexError, ValueError) as error:
        raise ArgumentError(
            f"`device_map` must name a device that JAX finds here, got {device!r}. Use 'auto' or 'cpu'."
        ) from error
