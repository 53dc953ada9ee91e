"""A config a prompt: each row is guided, drafted for, searched and drawn as its own config says, in any order."""

import itertools

import pytest

from fabula import AutoModelForCausalLM, GenerationConfig

PROMPTS = {"plain": [5, 6, 7], "drawn": [9, 8, 9, 8], "guided": [40, 41], "looked up": [3, 4, 3, 4, 3], "beams": [77]}
CONFIGS = {
    "plain": {},
    "drawn": {"do_sample": True, "top_k": 0},
    "guided": {"guidance_scale": 3.0},
    "looked up": {"do_sample": True, "prompt_lookup_num_tokens": 3},
    "beams": {"num_beams": 3},
}
SEEDS = dict(zip(CONFIGS, range(5), strict=True))


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, backend="native")


@pytest.fixture(scope="module")
def alone(model):
    """name -> the row that the name's prompt and config give by themselves."""
    return {name: model.generate([PROMPTS[name]], seed=[SEEDS[name]], **config(name))[0] for name in CONFIGS}


def config(name):
    return {"max_new_tokens": 8, "eos_token_id": 256, "pad_token_id": 258, **CONFIGS[name]}


@pytest.mark.parametrize("names", list(itertools.permutations(CONFIGS, 3)), ids=", ".join)
def test_rows_of_one_call_follow_their_own_configs(names, model, alone):
    rows = model.generate(
        [PROMPTS[name] for name in names],
        generation_config=[GenerationConfig(**config(name)) for name in names],
        seed=[SEEDS[name] for name in names],
    )
    assert rows == [alone[name] for name in names]


def test_a_seed_holds_though_the_first_prompt_is_not_sampled(model):
    names = ("plain", "drawn")
    configs = [GenerationConfig(**config(name)) for name in names]
    rows = [
        model.generate([PROMPTS[name] for name in names], generation_config=configs, seed=seed)[1] for seed in (1, 1, 2)
    ]
    assert rows[0] == rows[1] != rows[2]


def test_negative_prompts_go_to_guided_rows_alone(model, alone):
    names = ("plain", "guided")
    negatives = [[1, 2], [90, 91, 92]]
    rows = model.generate(
        [PROMPTS[name] for name in names],
        generation_config=[GenerationConfig(**config(name)) for name in names],
        negative_prompt_ids=negatives,
    )
    guided = model.generate([PROMPTS["guided"]], negative_prompt_ids=negatives[1:], **config("guided"))
    assert rows == [alone["plain"], *guided]
    assert guided[0] != alone["guided"]
