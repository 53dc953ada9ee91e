"""Any legal configuration of any strategy ends, keeps its limits, and gives a row what the row gets alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fabula import GenerationConfig
from tests.equal.strategies.runs import BACKENDS
from tests.equal.strategies.tiny import VOCABULARY

END = 2
IDS = st.integers(3, VOCABULARY - 1)
PROMPTS = st.lists(st.lists(IDS, min_size=1, max_size=11), min_size=2, max_size=3)
SEEDS = st.integers(0, 2**40)
FEW = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
FAMILIES = st.sampled_from(["llama", "gemma3", "mistral", "gpt2"])
LIMITS = {
    "max_new_tokens": st.integers(1, 10),
    "min_new_tokens": st.integers(0, 6),
    "eos_token_id": st.sampled_from([None, END, [END, 7, 8, 9]]),
    "repetition_penalty": st.sampled_from([1.0, 1.3]),
    "no_repeat_ngram_size": st.sampled_from([0, 2]),
    "suppress_tokens": st.none() | st.lists(IDS, min_size=1, max_size=4),
    "bad_words_ids": st.none() | st.lists(st.lists(IDS, min_size=1, max_size=2), min_size=1, max_size=3),
}
DRAWN = {
    "do_sample": st.just(True),
    "temperature": st.sampled_from([0.6, 1.0, 1.8]),
    "top_k": st.sampled_from([0, 3, 20]),
    "top_p": st.sampled_from([0.7, 1.0]),
}
BEAMS = {
    "num_beams": st.just(4),
    "num_return_sequences": st.integers(1, 4),
    "length_penalty": st.sampled_from([-1.0, 0.0, 1.0, 2.0]),
    "early_stopping": st.sampled_from([True, False, "never"]),
}
WORDS = st.lists(IDS, min_size=1, max_size=3)
STRATEGIES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "greedy": {},
    "sampling": {**DRAWN, "num_return_sequences": st.integers(1, 3)},
    "beams": BEAMS,
    "sampled beams": {**BEAMS, **DRAWN},
    "groups": {**BEAMS, "num_beam_groups": st.sampled_from([2, 4]), "diversity_penalty": st.floats(0.1, 2)},
    "constrained beams": {**BEAMS, "force_words_ids": st.lists(WORDS, min_size=1, max_size=2)},
    "contrastive": {"penalty_alpha": st.floats(0.1, 0.9), "top_k": st.integers(2, 6)},
    "layers": {"dola_layers": st.sampled_from(["low", "high", [1, 3], [4]])},
    "guided": {"guidance_scale": st.floats(0.2, 3)},
    "guided sampling": {**DRAWN, "guidance_scale": st.floats(0.2, 3)},
    "looked up": {"prompt_lookup_num_tokens": st.integers(1, 5)},
    "looked up sampling": {**DRAWN, "prompt_lookup_num_tokens": st.integers(1, 5)},
}


def rows_of(model: Any, prompts: list[list[int]], seeds: list[int], config: dict[str, Any]) -> list[list[list[int]]]:
    """For each prompt its sequences' new tokens."""
    sampled = {"seed": seeds} if config.get("do_sample") else {}
    rows = model.generate(prompts, **{"pad_token_id": 0, **config, **sampled})
    each = config.get("num_return_sequences", 1)
    assert len(rows) == each * len(prompts)
    for place, row in enumerate(rows):
        prompt = prompts[place // each]
        assert list(row[: len(prompt)]) == prompt
    return [[list(row[len(prompts[i]) :]) for row in rows[i * each : (i + 1) * each]] for i in range(len(prompts))]


def check_limits(new: list[int], config: dict[str, Any]) -> None:
    """One sequence ends where it has to, and not before it may."""
    end = config["eos_token_id"]
    ends = set() if end is None else {end} if isinstance(end, int) else set(end)
    assert 1 <= len(new) <= config["max_new_tokens"]
    assert not ends & set(new[:-1]), "nothing follows an end token"
    assert new[-1] in ends or len(new) == config["max_new_tokens"]
    assert not ends & set(new[: min(config["min_new_tokens"], config["max_new_tokens"])])
    assert not set(config["suppress_tokens"] or ()) & set(new) - {END}
    banned = [word for word in config["bad_words_ids"] or () if len(word) == 1]
    assert not any(word[0] in new for word in banned)


def legal(config: dict[str, Any]) -> dict[str, Any]:
    """The drawn values without those that could contradict each other."""
    kept = dict(config)
    if "dola_layers" in config:  # may leave one token, which nothing may then take away
        kept |= {"min_new_tokens": 0}
    if "force_words_ids" in config or "dola_layers" in config:
        kept |= {"suppress_tokens": None, "bad_words_ids": None, "no_repeat_ngram_size": 0}
    kept["min_new_tokens"] = min(kept["min_new_tokens"], kept["max_new_tokens"])
    return kept


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_row_keeps_its_limits_and_is_what_it_is_alone(name, tiny):
    drawn = st.fixed_dictionaries({**LIMITS, **STRATEGIES[name]})

    @FEW
    @given(drawn, PROMPTS, st.lists(SEEDS, min_size=3, max_size=3), FAMILIES)
    def holds(config, prompts, seeds, family):
        model, config, seeds = tiny(family, "native"), legal(config), seeds[: len(prompts)]
        together = rows_of(model, prompts, seeds, config)
        for rows in together:
            for new in rows:
                check_limits(new, config)
        backwards = rows_of(model, prompts[::-1], seeds[::-1], config)
        assert backwards[::-1] == together, "the order of prompts does not matter"
        alone = [rows_of(model, [prompt], [seed], config)[0] for prompt, seed in zip(prompts, seeds, strict=True)]
        assert alone == together, "what shares the batch does not matter"

    holds()


@pytest.mark.parametrize("backend", BACKENDS)
@settings(FEW, max_examples=10)
@given(st.data(), PROMPTS, st.lists(st.sampled_from(sorted(STRATEGIES)), min_size=3, max_size=3), SEEDS)
def test_rows_of_different_strategies_share_a_batch(backend, tiny, data, prompts, names, seed):
    model, configs = tiny("gemma3", backend), []
    for name in names[: len(prompts)]:
        config = legal(data.draw(st.fixed_dictionaries({**LIMITS, **STRATEGIES[name]})))
        end = config["eos_token_id"] or END  # None in a config would take the model's
        configs.append(config | {"num_return_sequences": 1, "pad_token_id": 0, "eos_token_id": end})
    seeds = [seed + row for row in range(len(prompts))]
    rows = model.generate(prompts, generation_config=[GenerationConfig(**config) for config in configs], seed=seeds)
    for prompt, config, own, row in zip(prompts, configs, seeds, rows, strict=True):
        assert list(row[len(prompt) :]) == rows_of(model, [prompt], [own], config)[0][0]
