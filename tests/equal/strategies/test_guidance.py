"""Guided rows of small models of every family are those of transformers."""

import pytest

from tests.equal.comparison import Tally
from tests.equal.strategies.runs import BACKENDS, NEW, hold_families, hold_live
from tests.equal.strategies.tiny import FAMILIES, prompts

torch = pytest.importorskip("torch")
VARIANTS = ({"guidance_scale": 1.7}, {"guidance_scale": 0.4, "eos_token_id": 2})


def test_guided_rows_equal_those_of_transformers(tiny, theirs):
    hold_families(tiny, theirs, VARIANTS)


def test_rows_guided_away_from_a_negative_prompt_equal_those_of_transformers(tiny, theirs):
    tally = Tally()
    given = {"max_new_tokens": NEW, "guidance_scale": 2.5}
    for family in FAMILIES:
        _, prompt, _, against = prompts(family, 4)
        ours = [tiny(family, backend) for backend in BACKENDS]
        extra = {"negative_prompt_ids": torch.tensor([against])}, [{"negative_prompt_ids": [against]}] * len(ours)
        hold_live(tally, family, theirs(family), ours, prompt, given, extra)
    tally.settle()
