"""Caches that a caller makes, empty: a call goes on from what one holds, and leaves what it computed there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fabula.errors import ArgumentError, NotSupportedError

__all__ = ["Cache", "DynamicCache", "EncoderDecoderCache", "QuantizedCache", "StaticCache", "held_by"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Cache:
    """What `past_key_values=` may be where keys and values do not come from an earlier call: nothing yet.

    `generate()` and `model(...)` fill it, so that the next call with it computes only what is new. How many rows it has
    is said by the first call. A copy goes on apart from it.
    """

    settings: Mapping[str, Any] = _NOTHING  # fields of GenerationConfig that this kind of cache stands for

    def __init__(self) -> None:
        self.held: Any = None  # what the last call left: a handle of generate(), or a past of `model(...)`

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many columns there are, padding included."""
        return 0 if self.held is None else int(self.held.get_seq_length())

    @property
    def is_initialized(self) -> bool:
        """Whether a call has filled it."""
        return self.held is not None

    @property
    def layers(self) -> tuple[Any, ...]:
        """Each layer's `keys` and `values`, Float["R heads columns features"]; copies, none before a call."""
        return () if self.held is None else tuple(self.held.layers)

    def reset(self) -> None:
        """Forgets everything."""
        self.held = None

    def crop(self, max_length: int) -> None:
        """Drops -max_length columns where it is negative; keeps the first max_length where it is positive."""
        if self.held is not None:
            self.held.crop(max_length)

    def reorder_cache(self, beam_idx: Sequence[int]) -> None:
        """Row i becomes what row beam_idx[i] was; there may be more or fewer than before."""
        if self.held is not None:
            self.held.reorder_cache(beam_idx)

    batch_select_indices = reorder_cache

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row becomes so many, one behind the other."""
        if self.held is not None:
            self.reorder_cache([row for row in range(self.held.rows) for _ in range(repeats)])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.get_seq_length()} columns)"


class DynamicCache(Cache):
    """One that grows with the text."""

    def __init__(
        self,
        ddp_cache_data: None = None,
        config: Any = None,
        offloading: bool = False,
        offload_only_non_sliding: bool = False,
    ) -> None:
        """`offloading` keeps it on the host. `config` and `offload_only_non_sliding` are known without. Raises
        NotSupportedError for keys and values of somebody else's.
        """
        super().__init__()
        if ddp_cache_data is not None:
            raise NotSupportedError(
                "`ddp_cache_data` must be None: a cache is filled by calls. Pass a Cache of transformers to generate()."
            )
        if offloading:
            self.settings = {"cache_implementation": "offloaded"}


class StaticCache(Cache):
    """One whose room for `max_cache_len` positions is taken at once; a longer text takes more."""

    def __init__(
        self,
        config: Any = None,
        max_cache_len: int | None = None,
        offloading: bool = False,
        offload_only_non_sliding: bool = True,
        **others: Any,
    ) -> None:
        """`config`, and the batch size, device and type that older releases ask for, are known without."""
        super().__init__()
        unknown = sorted(set(others) - {"max_batch_size", "batch_size", "device", "dtype", "layer_device_map"})
        if unknown:
            raise ArgumentError(f"StaticCache has no argument `{unknown[0]}`. It takes max_cache_len and offloading.")
        kind = "offloaded_static" if offloading else "static"
        self.settings = {"cache_implementation": kind, "max_cache_len": max_cache_len}


class QuantizedCache(Cache):
    """One of codes of `nbits` bits, of which `q_group_size` share a scale."""

    def __init__(
        self,
        backend: str = "quanto",
        config: Any = None,
        nbits: int | None = None,
        axis_key: int | None = None,
        axis_value: int | None = None,
        q_group_size: int | None = None,
        residual_length: int | None = None,
    ) -> None:
        """`backend`, axes and `residual_length` change nothing: attention reads what is stored."""
        super().__init__()
        given = {"nbits": nbits, "q_group_size": q_group_size}
        codes = {name: value for name, value in given.items() if value is not None}
        self.settings = {"cache_implementation": "quantized", "cache_config": codes}


class EncoderDecoderCache(Cache):
    """That of a model with an encoder, for generate(). What the encoder left is kept with the decoder's own."""

    def __init__(self, *caches: Any) -> None:
        """The decoder's cache says what kind it is; both are empty. Raises NotSupportedError for filled ones."""
        super().__init__()
        if not all(isinstance(cache, Cache) and cache.held is None for cache in caches):
            raise NotSupportedError(
                "EncoderDecoderCache must be made of new caches: DynamicCache(), StaticCache(...). Pass what an "
                "earlier call returned as `past_key_values` itself."
            )
        if caches:
            self.settings = caches[0].settings


def held_by(past: Any, call: dict[str, Any]) -> Any:
    """What there is to go on from in `past_key_values`; a new cache's settings join the call's.

    Raises ArgumentError where the call names another kind of cache.
    """
    if not isinstance(past, Cache):
        return past
    if call.get("cache_implementation") is not None:
        raise ArgumentError(
            f"`cache_implementation` must be absent beside a cache in `past_key_values`, which says its kind, got "
            f"{call['cache_implementation']!r}. Give one of both."
        )
    call.update(past.settings)
    return past.held
