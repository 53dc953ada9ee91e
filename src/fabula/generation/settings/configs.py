"""One GenerationConfig for a call, or one a prompt: each with every field settled, and what each prompt draws with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from fabula.errors import ArgumentError
from fabula.generation.seeds import seeds_for
from fabula.generation.settings.config import GenerationConfig
from fabula.generation.settings.rules import check_supported, resolve

__all__ = ["SHARED", "configs_for", "given_configs", "streams_for"]

SHARED = (  # settings that shape what a call returns, and not one row's text
    "return_dict_in_generate",
    "output_scores",
    "output_logits",
    "output_attentions",
    "output_hidden_states",
    "output_log_probabilities",
    "output_prompt_log_probabilities",
    "top_log_probabilities",
)


def given_configs(given: Any, prompts: int) -> list[GenerationConfig | None]:
    """What was passed as `generation_config`, one a prompt. Raises ArgumentError for a wrong type or number."""
    configs = list(given) if isinstance(given, (list, tuple)) else [given] * prompts
    if len(configs) != prompts:
        raise ArgumentError(
            f"`generation_config` must be one config, or a list of one a prompt, {prompts}, got {len(configs)}."
        )
    for config in configs:
        if config is not None and not isinstance(config, GenerationConfig):
            raise ArgumentError(
                "`generation_config` must be a fabula.GenerationConfig or a list of them, "
                f"got {type(config).__name__}. Make one: GenerationConfig(max_new_tokens=20)."
            )
    return configs


def configs_for(
    call: Mapping[str, Any], given: Any, model: GenerationConfig, prompts: int, accepts: Iterable[str] = ()
) -> list[GenerationConfig]:
    """The config of each prompt: from the call, else the prompt's own, else the model's, else the defaults.

    Prompts that were given the same config get the same object back. Raises what resolve() and check_supported()
    raise, and ArgumentError where SHARED settings differ.
    """
    settled: dict[int, GenerationConfig] = {}
    configs = []
    for config in given_configs(given, prompts):
        if id(config) not in settled:
            settled[id(config)] = resolve(call, config, model, accepts)[0]
            check_supported(settled[id(config)])
        configs.append(settled[id(config)])
    _check_shared(list(settled.values()))
    _check_beams(list(settled.values()))
    return configs


def streams_for(
    call: Mapping[str, Any], given: Any, configs: Sequence[GenerationConfig], inputs: Any
) -> list[tuple[int, int]]:
    """For each prompt its seed and the stream of its first sequence, `configs` being what configs_for() gave.

    One seed serves all prompts, whose sequences or beams take streams in order; a config of a prompt's own, or a list
    of seeds, gives that prompt a seed of its own, and streams from 0. `inputs` say whose generator is asked where there
    is none.
    """
    counts = [max(config.num_return_sequences or 1, config.num_beams or 1) for config in configs]
    first = list(accumulate(counts, initial=0))
    drawn = [config.seed if config.do_sample else 0 for config in configs]
    if isinstance(given, (list, tuple)) and "seed" not in call:
        common = seeds_for(None, 1, 1, inputs)[0][0] if None in drawn else 0
        own = [None if seed is None else seeds_for(seed, 1, 1, inputs)[0][0] for seed in drawn]
        return [(common, start) if seed is None else (seed, 0) for seed, start in zip(own, first, strict=False)]
    shared = configs[0].seed if any(config.do_sample for config in configs) else 0
    listed = isinstance(shared, (list, tuple))
    seeds = seeds_for(shared, len(configs), 1, inputs)
    return [(seed, 0 if listed else start) for (seed, _), start in zip(seeds, first, strict=False)]


def _check_beams(configs: list[GenerationConfig]) -> None:
    beams = {config.num_beams or 1 for config in configs}
    if len(beams) > 1 and configs[0].return_dict_in_generate:
        raise ArgumentError(
            f"`num_beams` must be the same for all prompts with `return_dict_in_generate`, got {sorted(beams)}. "
            "Leave return_dict_in_generate out, or call once for each."
        )


def _check_shared(configs: list[GenerationConfig]) -> None:
    for name in SHARED:
        values = {getattr(config, name, None) or None for config in configs}
        if len(values) > 1:
            raise ArgumentError(
                f"`{name}` must be the same for all prompts of a call, got {sorted(map(str, values))}. "
                "Set it for all of them, or call once for each."
            )
