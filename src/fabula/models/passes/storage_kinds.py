"""Which kind of storage serves where another is asked for, in backends that offload nothing."""

from __future__ import annotations

from fabula.cache.kinds import DYNAMIC, CacheKind
from fabula.errors import NotSupportedError


def kind_there(kind: CacheKind, device: str, framework: str) -> CacheKind:
    """The kind on a device: what is offloaded is where it would be anyway, if that is the CPU.

    Raises NotSupportedError for what is to be offloaded from another device.
    """
    if kind.name != "offloaded":
        return kind
    if device != "cpu":
        raise NotSupportedError(
            f"`cache_implementation` must not be {kind.name!r} in {framework} with a model on {device!r}: keys and "
            "values stay there. Use 'quantized', which takes less room, or load with backend='torch'."
        )
    return DYNAMIC
