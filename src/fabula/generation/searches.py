"""From a call's settled config to the way its rows choose: one line a mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fabula.decoding.beam_rows import Ranking
from fabula.decoding.beam_search import BeamSearch
from fabula.decoding.constrained_beams import ConstrainedBeamSearch
from fabula.decoding.constraints import constraints_of
from fabula.decoding.contrastive import ContrastiveSearch
from fabula.decoding.diverse_beams import DiverseBeamSearch
from fabula.decoding.ensemble import Ensemble
from fabula.decoding.layer_contrast import LayerContrast, premature_layers
from fabula.decoding.sample import SAMPLE
from fabula.decoding.strategy import Search, Strategy
from fabula.generation.settings.modes import GenerationMode, mode_of

__all__ = ["Searched", "judge_of", "strategy_of"]


@dataclass(frozen=True, slots=True)
class Searched:
    """What the way to choose is made from."""

    config: Any  # a settled GenerationConfig
    new_tokens: int  # the most of a sequence
    end_tokens: int  # how many tokens end one
    layers: int = 0  # of the model
    tied: bool = False  # whether its embeddings are its head


def strategy_of(asked: Searched) -> Strategy | Search:
    """How the rows of one prompt choose."""
    return _MAKERS[mode_of(asked.config)](asked)


def judge_of(config: Any) -> Strategy:
    """How rows choose that a drafter drafts for: by themselves, or together with it."""
    weight = config.assistant_ensemble_weight
    return SAMPLE if weight is None else Ensemble(weight)


def ranking_of(asked: Searched) -> Ranking:
    """How a beam search's sequences compare."""
    config = asked.config
    most = asked.new_tokens if config.early_stopping == "never" else None
    return Ranking(config.length_penalty, config.early_stopping, most)


def _beams(asked: Searched) -> Search:
    config = asked.config
    return BeamSearch(config.num_beams, config.num_return_sequences or 1, ranking_of(asked), asked.end_tokens)


def _diverse(asked: Searched) -> Search:
    config = asked.config
    return DiverseBeamSearch(
        num_beams=config.num_beams,
        num_beam_groups=config.num_beam_groups,
        diversity_penalty=config.diversity_penalty,
        results=config.num_return_sequences or 1,
        ranking=ranking_of(asked),
        end_tokens=asked.end_tokens,
        padding=_padding(config),
    )


def _padding(config: Any) -> int:
    """What fills a row that has ended: the padding token, or else the first end token."""
    ends = config.eos_token_id
    first = ends[0] if isinstance(ends, (list, tuple)) and ends else ends
    given = config.pad_token_id if config.pad_token_id is not None else first
    return int(given) if isinstance(given, int) and given >= 0 else 0


def _constrained(asked: Searched) -> Search:
    config = asked.config
    return ConstrainedBeamSearch(
        num_beams=config.num_beams,
        constraints=constraints_of(config.constraints, config.force_words_ids),
        results=config.num_return_sequences or 1,
        ranking=ranking_of(asked),
        end_tokens=asked.end_tokens,
    )


def _contrastive(asked: Searched) -> Search:
    return ContrastiveSearch(asked.config.top_k, asked.config.penalty_alpha)


def _layers(asked: Searched) -> Strategy:
    return LayerContrast(premature_layers(asked.config.dola_layers, asked.layers, asked.tied))


_MAKERS: Mapping[GenerationMode, Callable[[Searched], Strategy | Search]] = MappingProxyType(
    {
        GenerationMode.GREEDY_SEARCH: lambda asked: SAMPLE,
        GenerationMode.SAMPLE: lambda asked: SAMPLE,
        GenerationMode.ASSISTED_GENERATION: lambda asked: SAMPLE,
        GenerationMode.BEAM_SEARCH: _beams,
        GenerationMode.BEAM_SAMPLE: _beams,
        GenerationMode.GROUP_BEAM_SEARCH: _diverse,
        GenerationMode.CONSTRAINED_BEAM_SEARCH: _constrained,
        GenerationMode.CONTRASTIVE_SEARCH: _contrastive,
        GenerationMode.DOLA_GENERATION: _layers,
    }
)
