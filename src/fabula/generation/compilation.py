"""From `compile_config` and `disable_compile` to what torch.compile is called with."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from fabula.decoding.recipe import Compilation
from fabula.errors import NotSupportedError
from fabula.generation.settings.compile_config import CompileConfig
from fabula.generation.settings.config import GenerationConfig

__all__ = ["compilation_of"]


def compilation_of(model: Any, config: GenerationConfig) -> Compilation | None:
    """How the call wants the model's forward compiled; None: not at all.

    Raises NotSupportedError for a model whose forward is none of torch.compile's business.
    """
    asked = config.compile_config
    if asked is None or config.disable_compile:
        return None
    if not getattr(model, "compiles", False):
        raise NotSupportedError(
            "`compile_config` is for models of backend 'torch': others are compiled already, and a module of your own "
            "is compiled by torch.compile(module). Leave it out."
        )
    named = {each.name: getattr(asked, each.name) for each in fields(CompileConfig)}
    options = named.pop("options")
    if options:  # PyTorch takes these or a mode
        named = {**named, "mode": None, "options": tuple(sorted(options.items()))}
    return Compilation(tuple(named.items()))
