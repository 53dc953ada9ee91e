"""Sampling follows the distributions of transformers: exact after processors, and by chi-square over many draws."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.equal.strategies.live import call
from tests.equal.strategies.runs import BACKENDS
from tests.equal.strategies.statistics import assert_drawn_from
from tests.equal.strategies.tiny import FAMILIES, prompts

torch = pytest.importorskip("torch")

DRAWS = 3000
SAMPLED = {"do_sample": True, "pad_token_id": 0, "eos_token_id": None}
SCORED = {"output_scores": True, "return_dict_in_generate": True}
PROBABILITY = 1e-5  # how far one may be from the reference's
VARIANTS = (
    {"top_k": 0},
    {"temperature": 0.7},
    {"top_p": 0.8, "temperature": 1.3},
    {"min_p": 0.2, "top_k": 0},
    {"typical_p": 0.6, "top_k": 0},
    {"top_h": 0.4},
    {"epsilon_cutoff": 0.02, "top_k": 30},
    {"eta_cutoff": 0.03, "top_k": 0},
    {"top_k": 7, "top_p": 0.9, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
    {"temperature": 0.9, "min_new_tokens": 3, "eos_token_id": 2, "suppress_tokens": [5, 6], "renormalize_logits": True},
    {"temperature": 0.8, "bad_words_ids": [[9], [10, 11]], "exponential_decay_length_penalty": (1, 1.5)}
    | {"eos_token_id": 2, "top_k": 20},
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_probabilities_after_processors_equal_those_of_transformers(backend, tiny, theirs, monkeypatch):
    """At every step of the text that Fabula drew."""
    for family, settings in zip(list(FAMILIES) * 2, VARIANTS, strict=False):
        prompt, given = prompts(family, 2)[1], SAMPLED | {"max_new_tokens": 4} | settings
        out = tiny(family, backend).generate([prompt], seed=5, **given, **SCORED)
        ours = [torch.as_tensor(np.asarray(scores[0]), dtype=torch.float64) for scores in out.scores]
        tokens = iter(int(token) for token in out.sequences[0][len(prompt) :])
        with monkeypatch.context() as patch:
            patch.setattr(torch, "multinomial", lambda *_, tokens=tokens, **__: torch.tensor([[next(tokens)]]))
            reference = call(theirs(family), prompt, **given).scores
        assert len(ours) == len(reference) > 0
        for step, (mine, exact) in enumerate(zip(ours, reference, strict=True)):
            apart = (mine.softmax(-1) - exact[0].double().softmax(-1)).abs().max()
            assert apart < PROBABILITY, (family, settings, step, float(apart))


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_draws_follow_the_exact_probabilities(backend, tiny, theirs):
    """Pairs of tokens: the second's probabilities depend on the first."""
    family, settings = "mistral", SAMPLED | {"top_k": 5, "temperature": 1.2}
    prompt = prompts(family)[0]
    rows = tiny(family, backend).generate([prompt], num_return_sequences=DRAWS, max_new_tokens=2, seed=3, **settings)
    counts = Counter(tuple(int(token) for token in row[len(prompt) :]) for row in rows)
    assert_drawn_from(counts, pair_probabilities(theirs(family), prompt, settings))


def pair_probabilities(model, prompt, settings):
    """(first, second) -> probability, by transformers."""

    def next_token(row):
        scores = call(model, row, **settings, max_new_tokens=1).scores[0][0]
        return {token: float(p) for token, p in enumerate(scores.double().softmax(-1)) if p > 0}

    return {
        (first, second): p * q
        for first, p in next_token(prompt).items()
        for second, q in next_token([*prompt, first]).items()
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_streams_of_a_seed_and_seeds_of_a_stream_are_independent(backend, tiny):
    """The first tokens of neighbouring rows are no more alike than chance makes them."""
    prompt = prompts("llama")[0]
    settings = SAMPLED | {"top_k": 4, "max_new_tokens": 1}
    model = tiny("llama", backend)
    streams = model.generate([prompt], num_return_sequences=DRAWS, seed=1, **settings)
    seeds = model.generate([prompt] * (DRAWS // 4), seed=list(range(DRAWS // 4)), **settings)
    for rows in (streams, seeds):
        tokens = [int(row[-1]) for row in rows]
        share = {token: count / len(tokens) for token, count in Counter(tokens).items()}
        pairs = Counter(zip(tokens[::2], tokens[1::2], strict=True))
        assert_drawn_from(pairs, {(a, b): p * q for a, p in share.items() for b, q in share.items()})
