"""What a pipeline asks of generate() where neither its caller nor the model's files say anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fabula.generation.settings.config import GenerationConfig

FREE_TEXT: Mapping[str, Any] = {"max_new_tokens": 256, "do_sample": True, "temperature": 0.7}
_OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")


def settled(arguments: Mapping[str, Any], model: GenerationConfig) -> dict[str, Any]:
    """Every generation setting that somebody chose: the call, its config, the model's config."""
    chosen = model.to_diff_dict()
    config = arguments.get("generation_config")
    if isinstance(config, GenerationConfig):
        chosen.update(config.to_diff_dict())
    return {**chosen, **arguments}


def with_defaults(
    arguments: Mapping[str, Any], model: GenerationConfig, defaults: Mapping[str, Any], pad_token_id: int | None
) -> dict[str, Any]:
    """The arguments, and the defaults for what nobody chose; those of sampling only where it is sampled."""
    chosen = settled(arguments, model)
    offered = dict(defaults) if pad_token_id is None else {**defaults, "pad_token_id": pad_token_id}
    added = {name: value for name, value in offered.items() if name not in chosen}
    if "max_length" in chosen:
        added.pop("max_new_tokens", None)
    if not {**chosen, **added}.get("do_sample"):
        added = {name: value for name, value in added.items() if name not in _OF_SAMPLING}
    return {**arguments, **added}
