"""Combinations of beam settings that make no sense are refused, with what to do instead."""

from __future__ import annotations

import pytest

from fabula.decoding.constraints import PhrasalConstraint
from fabula.errors import ArgumentError
from fabula.generation.settings.config import GenerationConfig

GROUPS = {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0}
WORDS = {"num_beams": 4, "force_words_ids": [[5]]}


@pytest.mark.parametrize("settings", [GROUPS, WORDS, {"num_beams": 2, "constraints": [PhrasalConstraint([1])]}])
def test_sensible_ones_are_taken(settings):
    GenerationConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({**GROUPS, "num_beams": 5}, "multiple of `num_beam_groups`=2, got 5"),
        ({**GROUPS, "do_sample": True}, "`do_sample` must be False with `num_beam_groups`"),
        ({**GROUPS, "diversity_penalty": 0.0}, "`diversity_penalty` must be above 0"),
        ({**WORDS, "num_beams": 1}, "`num_beams` must be above 1"),
        ({**WORDS, "do_sample": True}, "`do_sample` must be False with `constraints`"),
        ({**WORDS, **GROUPS}, "`num_beam_groups` must be 1 with `constraints`"),
        ({"num_beams": 2, "num_return_sequences": 3}, "at most `num_beams`=2, got 3"),
    ],
)
def test_senseless_ones_are_refused(settings, reason):
    with pytest.raises(ArgumentError, match=reason):
        GenerationConfig(**settings)
