"""The ways to decode, and which of them a config asks for."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

__all__ = ["GenerationMode", "ignored_upgrades", "mode_of"]


class GenerationMode(StrEnum):
    """A way to decode; equal to its name as a text."""

    CONTRASTIVE_SEARCH = "contrastive_search"
    GREEDY_SEARCH = "greedy_search"
    SAMPLE = "sample"
    ASSISTED_GENERATION = "assisted_generation"
    DOLA_GENERATION = "dola_generation"
    BEAM_SEARCH = "beam_search"
    BEAM_SAMPLE = "beam_sample"
    CONSTRAINED_BEAM_SEARCH = "constrained_beam_search"
    GROUP_BEAM_SEARCH = "group_beam_search"


_UPGRADABLE = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)


def _sampled(settings: Any) -> bool:
    return settings.do_sample is True and settings.temperature != 0


def _contrastive(settings: Any) -> bool:
    above = settings.top_k is not None and settings.top_k > 1
    return above and settings.penalty_alpha is not None and settings.penalty_alpha > 0


def plain_mode(settings: Any) -> GenerationMode:
    """The mode before drafting and DoLa are looked at; `temperature=0` is greedy."""
    if settings.constraints is not None or settings.force_words_ids is not None:
        return GenerationMode.CONSTRAINED_BEAM_SEARCH
    if settings.num_beams is None or settings.num_beams == 1:
        if _sampled(settings):
            return GenerationMode.SAMPLE
        contrastive = settings.do_sample is not True and _contrastive(settings)
        return GenerationMode.CONTRASTIVE_SEARCH if contrastive else GenerationMode.GREEDY_SEARCH
    if settings.num_beam_groups is not None and settings.num_beam_groups > 1:
        return GenerationMode.GROUP_BEAM_SEARCH
    return GenerationMode.BEAM_SAMPLE if _sampled(settings) else GenerationMode.BEAM_SEARCH


def _drafting(settings: Any, assistant_model: Any) -> bool:
    lookup = settings.prompt_lookup_num_tokens is not None or settings.assistant_early_exit is not None
    return assistant_model is not None or bool(settings.use_mtp) or lookup


def mode_of(settings: Any, assistant_model: Any = None) -> GenerationMode:
    """The mode that `settings` (anything with a config's attributes) asks for."""
    mode = plain_mode(settings)
    if mode in _UPGRADABLE and _drafting(settings, assistant_model):
        mode = GenerationMode.ASSISTED_GENERATION
    if mode in _UPGRADABLE and settings.dola_layers is not None:
        mode = GenerationMode.DOLA_GENERATION
    return mode


def ignored_upgrades(settings: Any, assistant_model: Any = None) -> list[str]:
    """What was asked for on top of a mode that it does not go with, one sentence each."""
    mode = mode_of(settings, assistant_model)
    plain = plain_mode(settings)
    sentences = []
    if _drafting(settings, assistant_model) and mode != GenerationMode.ASSISTED_GENERATION:
        sentences.append(f"Drafted tokens go only with greedy search and sampling; {plain} ignores them.")
    if settings.dola_layers is not None and mode != GenerationMode.DOLA_GENERATION:
        sentences.append(f"`dola_layers` goes only with greedy search and sampling; {mode} ignores it.")
    return sentences
