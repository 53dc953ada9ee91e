"""What every model in JAX has that generates: generate() with the conventions of Flax."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from fabula.errors import ArgumentError
from fabula.generation.mixin import GenerationMixin
from fabula.generation.settings.config import GenerationConfig
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps

__all__ = ["FlaxGenerationMixin"]


class _Kept:
    """What a module has beside its parameters. Copies of a module share it, but for what runs on one of them."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.running: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def __deepcopy__(self, memo: Any) -> _Kept:
        kept = _Kept()
        kept.values = {name: copy.copy(value) for name, value in self.values.items()}
        return kept

    def __reduce__(self) -> Any:
        return _Kept, ()


class _Hidden:
    """An attribute that is no part of a module's tree, so that Flax neither compares nor traces it."""

    def __init__(self, default: Any = None) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, module: Any, owner: type | None = None) -> Any:
        return self.default if module is None else module._kept.values.get(self.name, self.default)

    def __set__(self, module: Any, value: Any) -> None:
        module._kept.values[self.name] = value


class _Running:
    """The engines of one module, and of none of its copies."""

    def __get__(self, module: Any, owner: type | None = None) -> Any:
        return None if module is None else module._kept.running.get(module)

    def __set__(self, module: Any, value: Any) -> None:
        module._kept.running[module] = value


class FlaxGenerationMixin(GenerationMixin):
    """Gives a `flax.nnx.Module` `generate()`: one with nothing but `__call__(input_ids) -> logits`, or with more of
    transformers' arguments.
    """

    _kept: _Kept
    _engine = _Running()
    _tokenizer = _Hidden()
    tokenizer_loader = _Hidden()
    name_or_path = _Hidden("")

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        module = super().__new__(cls)
        object.__setattr__(module, "_kept", _Kept())
        return module

    @property
    def generation_config(self) -> GenerationConfig:
        """How it generates where a call does not say; to be set, or changed, at any time."""
        return self._kept.values.setdefault("generation_config", self._first_config())

    @generation_config.setter
    def generation_config(self, config: GenerationConfig) -> None:
        self._kept.values["generation_config"] = config

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are: as `config` says, or as many as there are logits."""
        told = getattr(getattr(self, "config", None), "vocab_size", None)
        if told is None:
            told = self._kept.values.get("vocabulary_size")
        if told is None:
            told = self._kept.values["vocabulary_size"] = _adapter().vocabulary_size(self)
        return int(told)

    @property
    def inputs_like(self) -> Any:
        """An array of JAX: what outputs without inputs are."""
        return _adapter().inputs_like(self)

    def new_cache(self, blocks: int) -> Any:
        """Storage of a module with a call of its own; models with keys and values in blocks have another."""
        return _adapter().new_cache(blocks)

    def step(self, batch: Batch, cache: Any, taps: Taps = NO_TAPS) -> Forward:
        """The same rows in rectangles, as a call of the module's own takes them."""
        return _adapter().step(self, batch, cache, taps)

    def _first_config(self) -> GenerationConfig:
        """What holds where nobody has set one."""
        return GenerationConfig()

    def generate(  # type: ignore[override]
        self,
        inputs: Any = None,
        generation_config: Any = None,
        prng_key: Any = None,
        trace: bool = True,
        params: Any = None,
        logits_processor: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Prompts and what the model adds to them: as GenerationMixin.generate, with JAX's arrays, whose ids are int32.

        `prng_key` (old or new style) fixes what is drawn, where `seed` is not given; without either the key is
        PRNGKey(0)'s, as Flax's users know it: the same call gives the same text. `params`, a state of the module or a
        mapping of the same names, stand for the module's own during the call. `trace=False` chooses token by token.

        Raises what GenerationMixin.generate raises, and ArgumentError for a key or parameters that are none.
        """
        if not trace and kwargs.get("streamer") is None:
            kwargs["streamer"] = _EachToken()
        model = self if params is None else _with_parameters(self, params)
        if kwargs.get("seed") is None and getattr(generation_config, "seed", None) is None:
            kwargs["seed"] = 0 if prng_key is None else _seed_of(prng_key)
        elif prng_key is not None:
            raise ArgumentError("give `prng_key` or `seed`, not both. Leave one out.")
        return GenerationMixin.generate(model, inputs, generation_config, logits_processor, **kwargs)


class _EachToken:
    """A streamer that nobody reads: the engine then chooses token by token."""

    takes_rows = True

    def put(self, value: Any, row: int = 0) -> None:
        """Nothing."""

    def end_row(self, row: int) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


def _adapter() -> Any:
    """What makes a model of a module with a call of its own; of one in JAX, whatever class it is of."""
    return import_module("fabula.adapters.jax")


def _seed_of(key: Any) -> int:
    """A seed of 64 bits: the key's two words. Raises ArgumentError for what is no key."""
    words = import_module("fabula.generation.jax").key_words(key)
    if words is None:
        raise ArgumentError(f"`prng_key` must be a key of JAX, got {type(key).__name__}. Use jax.random.key(seed).")
    return int(words[0]) << 32 | int(words[-1])


def _with_parameters(module: Any, params: Any) -> Any:
    """The module with other parameters. Raises ArgumentError unless they are its own by names and shapes."""
    if not isinstance(params, Mapping):
        raise ArgumentError(
            f"`params` must be a state or a mapping of the module's parameters, got {type(params).__name__}. "
            "Use nnx.state(model, nnx.Param)."
        )
    return import_module("fabula.generation.jax").with_parameters(module, params)
