"""From `use_cache`, `cache_implementation` and what goes with them to a kind of storage, and the engine that has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fabula.cache.blocks import blocks_for
from fabula.cache.kinds import DYNAMIC, CacheKind
from fabula.engine.engine import Engine
from fabula.engine.request import Request
from fabula.errors import ArgumentError, NotSupportedError, OutOfMemoryError
from fabula.generation.past.handle import GeneratedPast
from fabula.generation.settings.checks import nearest
from fabula.generation.settings.config import GenerationConfig
from fabula.generation.settings.fields import OLD_STATIC_CACHES, STATIC_CACHES

__all__ = ["is_kept", "kind_of", "kinds_of", "one_kind", "reserve", "run_requests"]

BITS = (4, 8)
_WITHOUT_EFFECT = ("backend", "axis_key", "axis_value", "residual_length", "device", "compute_dtype")


def is_kept(config: GenerationConfig) -> bool:
    """Whether what the call computes may be gone on from."""
    return config.use_cache is not False


def kind_of(config: GenerationConfig, past: Any = None) -> CacheKind:
    """The kind of storage that a settled config asks for; a handle's own where it asks for none."""
    own = past.kind if isinstance(past, GeneratedPast) else None
    name = config.cache_implementation if is_kept(config) else None
    if name is None:
        return own or DYNAMIC
    kind = _quantized(config.cache_config) if name == "quantized" else DYNAMIC
    if name.startswith("offloaded"):
        kind = CacheKind("offloaded")
    if own is not None and own != kind and not {own.name, kind.name} <= {"dynamic", "offloaded"}:
        raise ArgumentError(
            f"`cache_implementation` must be left out with `past_key_values` of another kind, got {name!r}. "
            "The past's own kind goes on."
        )
    return kind if own is None else own


def _quantized(settings: Any) -> CacheKind:
    """`cache_config`: bits a number, and how many features of a head share a scale."""
    given = {} if settings is None else settings if isinstance(settings, Mapping) else vars(settings)
    known = ("nbits", "q_group_size", *_WITHOUT_EFFECT)
    for name in given:
        if name not in known:
            meant = nearest(name, known)
            advice = f"Did you mean `{meant}`?" if meant else f"It may hold {', '.join(known)}."
            raise ArgumentError(f"`cache_config` must hold settings of a quantized cache, got {name!r}. {advice}")
    bits, group = given.get("nbits", 4), given.get("q_group_size", 64)
    if bits not in BITS:
        raise NotSupportedError(f"`nbits` of `cache_config` must be 4 or 8, got {bits!r}.")
    if not isinstance(group, int) or isinstance(group, bool) or group < 1:
        raise ArgumentError(f"`q_group_size` of `cache_config` must be an integer of at least 1, got {group!r}.")
    return CacheKind("quantized", bits, group)


def kinds_of(model: Any, configs: Sequence[GenerationConfig], past: Any = None) -> list[CacheKind]:
    """How each prompt's keys and values are stored. Raises ArgumentError, NotSupportedError."""
    return [model.storage_kind(kind_of(config, past)) for config in configs]


def one_kind(kinds: Sequence[CacheKind]) -> CacheKind:
    """The kind of all rows of a past. Raises ArgumentError where prompts ask for several."""
    if len(set(kinds)) > 1:
        raise ArgumentError("`cache_implementation` must be the same for all prompts with `past_key_values`.")
    return kinds[0]


def run_requests(
    model: Any, requests: Sequence[Request], configs: Sequence[GenerationConfig], kinds: Sequence[CacheKind]
) -> None:
    """Runs each request in the engine of its kind; those of one kind together."""
    for kind in dict.fromkeys(kinds):
        engine, places = model.engine_for(kind), [place for place, one in enumerate(kinds) if one == kind]
        static = [(requests[place], configs[place]) for place in places if _is_static(configs[place])]
        if static:
            reserve(engine, static)
        engine.run([requests[place] for place in places])


def _is_static(config: GenerationConfig) -> bool:
    return is_kept(config) and config.cache_implementation in (*STATIC_CACHES, *OLD_STATIC_CACHES)


def reserve(engine: Engine, requests: Sequence[tuple[Request, GenerationConfig]]) -> None:
    """Makes room for all that these requests can come to, so that their run needs no more. Raises OutOfMemoryError."""
    blocks = sum(_blocks(request, config.max_cache_len or 0) for request, config in requests)
    with engine.alone():
        engine.reserve(blocks)
        if blocks > engine.max_blocks:
            raise OutOfMemoryError(f"a static cache of {blocks} blocks exceeds the {engine.max_blocks} there may be.")


def _blocks(request: Request, most: int) -> int:
    search = request.recipe.search
    rows, longest = request.rows if search is None else search.width, request.recipe.limits.max_length
    beside = 0 if request.negative is None else len(request.negative) + longest - len(request.prompt)
    lengths = [max(longest, most), *([beside] if beside else [])]
    return rows * sum(blocks_for(length) + (rows > 1) for length in lengths)
