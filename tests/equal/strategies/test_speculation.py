"""Speculation changes no row: with prompt lookup or a drafting model it is what transformers gives, and as without."""

import pytest

from tests.equal.comparison import Tally
from tests.equal.strategies.runs import BACKENDS, NEW, generated, hold_families, hold_live
from tests.equal.strategies.tiny import FAMILIES, prompts

LOOKUP = (
    {"prompt_lookup_num_tokens": 3},
    {"prompt_lookup_num_tokens": 6, "max_matching_ngram_size": 3, "repetition_penalty": 1.2, "eos_token_id": 2},
)


def test_rows_with_prompt_lookup_equal_those_of_transformers(tiny, theirs):
    hold_families(tiny, theirs, LOOKUP, reading=lambda prompt: prompt * 3)


def test_assisted_rows_equal_those_of_transformers(tiny, theirs):
    tally = Tally()
    given = {"max_new_tokens": NEW, "num_assistant_tokens": 4}
    for family in FAMILIES:
        drafter = "llama" if family == "qwen2" else "qwen2"
        prompt = prompts(family, 2)[1]
        ours = [tiny(family, backend) for backend in BACKENDS]
        extra = {"assistant_model": theirs(drafter)}, [{"assistant_model": tiny(drafter, each)} for each in BACKENDS]
        hold_live(tally, family, theirs(family), ours, prompt, given, extra)
    tally.settle()


SEEDED = {"do_sample": True, "seed": 23, "temperature": 0.7, "top_k": 12, "max_new_tokens": NEW}


@pytest.mark.parametrize(("family", "backend"), [*((family, "native") for family in FAMILIES), ("gemma3", "torch")])
def test_a_seeded_text_is_the_same_under_any_speculation(family, backend, tiny):
    model, drafter = tiny(family, backend), tiny("llama" if family == "qwen2" else "qwen2", backend)
    speculations = (
        {"prompt_lookup_num_tokens": 4},
        {"prompt_lookup_num_tokens": 2, "max_matching_ngram_size": 1},
        {"assistant_model": drafter, "num_assistant_tokens": 3},
        {"assistant_model": drafter, "num_assistant_tokens_schedule": "heuristic"},
        {"assistant_model": model, "num_assistant_tokens": 5},  # every draft stands
    )
    for prompt in prompts(family, 2):
        plain = generated(model, prompt * 2, **SEEDED).rows
        for speculation in speculations:
            assert generated(model, prompt * 2, **SEEDED, **speculation).rows == plain, speculation


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_drafted_for_together_are_what_each_is_alone_without_drafts(backend, tiny):
    model, drafter = tiny("mistral", backend), tiny("qwen2", backend)
    rows, seeds = [prompt * 2 for prompt in prompts("mistral", 4)], [3, 1, 4, 1]
    alone = [generated(model, row, **SEEDED | {"seed": [seed]}).rows[0] for row, seed in zip(rows, seeds, strict=True)]
    given = {**SEEDED, "seed": seeds, "eos_token_id": None, "pad_token_id": 0}
    for speculation in ({"assistant_model": drafter, "num_assistant_tokens": 4}, {"prompt_lookup_num_tokens": 3}):
        together = model.generate(rows, **given, **speculation)
        assert [list(new[len(row) :]) for row, new in zip(rows, together, strict=True)] == alone
