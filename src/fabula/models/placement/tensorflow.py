"""Where a model computes in TensorFlow: wherever it puts things itself."""

from __future__ import annotations

import tensorflow as tf

from fabula.errors import NotSupportedError

__all__ = ["best_device", "check_device"]


def best_device() -> str:
    """The first GPU that TensorFlow sees, else the CPU."""
    return "cuda" if tf.config.list_logical_devices("GPU") else "cpu"


def check_device(device: str) -> None:
    """Raises NotSupportedError for a device that is not the one on which TensorFlow computes."""
    if device.partition(":")[0] != best_device():
        raise NotSupportedError(
            f"`device_map` must be 'auto' or {best_device()!r} for backend 'tensorflow', got {device!r}. "
            "Hide or show GPUs with tf.config.set_visible_devices()."
        )
