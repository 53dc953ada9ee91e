"""Calls on which bursts are compared with steps one by one, and what is looked at of them."""

from __future__ import annotations

import numpy as np

from fabula import SynthIDTextWatermarkingConfig

PLAIN = {"max_new_tokens": 80, "do_sample": False}
SAMPLED = {
    "max_new_tokens": 70,
    "do_sample": True,
    "temperature": 0.8,
    "top_k": 30,
    "top_p": 0.9,
    "repetition_penalty": 1.2,
    "num_return_sequences": 2,
    "seed": 5,
}
BEAMS = {"max_new_tokens": 80, "do_sample": False, "num_beams": 3, "num_return_sequences": 2}
DRAWN_BEAMS = {
    "max_new_tokens": 70,
    "do_sample": True,
    "num_beams": 4,
    "temperature": 1.2,
    "top_k": 30,
    "repetition_penalty": 1.1,
    "length_penalty": 0.4,
    "seed": 5,
}
GUIDED = {
    "max_new_tokens": 70,
    "do_sample": True,
    "guidance_scale": 2.5,
    "negative_prompt_ids": [[5, 6, 7, 8, 9, 10, 11], [12], list(range(20, 80))],
    "top_k": 30,
    "seed": 5,
}
NEGATIVE = {name: GUIDED[name] for name in ("guidance_scale", "negative_prompt_ids")}
CONTRASTED = {"max_new_tokens": 80, "do_sample": False, "dola_layers": [0, 1], "repetition_penalty": 1.2}
DIVERSE_BEAMS = {
    "max_new_tokens": 40,
    "do_sample": False,
    "num_beams": 4,
    "num_beam_groups": 2,
    "diversity_penalty": 0.6,
    "num_return_sequences": 3,
    "repetition_penalty": 1.1,
    "eos_token_id": [7, 14, 77],
}
CONTRASTIVE = {
    "max_new_tokens": 40,
    "penalty_alpha": 0.6,
    "top_k": 4,
    "repetition_penalty": 1.1,
}
WORDS = [  # lists whose rounded sizes are the same
    {"max_new_tokens": 20, "do_sample": False, "bad_words_ids": words, "sequence_bias": bias}
    for words, bias in (
        ([[5], [7, 8]], {(9,): 2.0}),
        ([[token] for token in range(20, 24)], {(21, 5): 3.0, (30,): 1.5, (31,): 1.5}),
    )
]
FORCED_BEAMS = {
    "max_new_tokens": 60,
    "do_sample": False,
    "num_beams": 4,
    "num_return_sequences": 2,
    "force_words_ids": [[11, 12], [[21, 22], [21, 30, 31]]],
    "repetition_penalty": 1.1,
    "eos_token_id": [7, 14, 77],
}
ASK = {"pad_token_id": 0, "eos_token_id": 77}


def prompts(rows=3):
    """Int["R 50"] and a mask of it: prompts of 50, 20 and 50 tokens."""
    ids = np.random.default_rng(1).integers(3, 70, (3, 50)).astype(np.int32)
    mask = np.ones_like(ids)
    mask[1, :30] = 0
    return ids[:rows], mask[:rows]


def generate(door, model, rows=3, **call):
    """What the model makes of the first prompts."""
    return door.on_host(door.generate(model, prompts(rows), **{**ASK, **call})).tolist()


RECORDED = {  # temperature, so that scores are not logits
    "max_new_tokens": 70,
    "do_sample": True,
    "temperature": 0.7,
    "top_k": 20,
    "seed": 4,
    "return_dict_in_generate": True,
    "output_scores": True,
    "output_logits": True,
    "output_log_probabilities": True,
    "top_log_probabilities": 3,
}


def recorded(door, model, rows=3, **call):
    """A call's output with its arrays on the host."""
    output = door.generate(model, prompts(rows), **{**ASK, **RECORDED, **call})
    kept = {name: getattr(output, name) for name in ("scores", "logits")}
    numbers = {name: np.stack([door.on_host(step) for step in steps]) for name, steps in kept.items() if steps}
    numbers["log_probabilities"] = door.on_host(output.log_probabilities)
    return door.on_host(output.sequences).tolist(), numbers, output.top_log_probabilities


def hold_recorded(found, expected):
    """The same tokens, numbers within 1e-5, and the same likeliest tokens."""
    (tokens, numbers, top), (their_tokens, their_numbers, their_top) = found, expected
    assert tokens == their_tokens
    for name, mine in numbers.items():
        np.testing.assert_allclose(mine, their_numbers[name], rtol=1e-5, atol=1e-5, err_msg=name)
    for mine, yours in zip(top, their_top, strict=True):
        for (tokens, values), (their_tokens, their_values) in zip(map(split, mine), map(split, yours), strict=True):
            assert tokens == their_tokens
            np.testing.assert_allclose(values, their_values, rtol=1e-5, atol=1e-5)


def noted_bursts(model, name="run"):
    """Where it is noted of each burst how many tokens the row, or the group, got that got most."""
    counts, run = [], getattr(model.bursts, name)

    def counted(*arguments):
        found = run(*arguments)
        counts.append(max(map(len, found)))
        return found

    setattr(model.bursts, name, counted)
    return counts


def split(pairs):
    return tuple(zip(*pairs, strict=True))


def search(door, model, rows=3, **call):
    """What a search finds for the first prompts, and the beams that each token was chosen after."""
    found = door.generate(model, prompts(rows), **{**ASK, **call, "return_dict_in_generate": True})
    return door.on_host(found.sequences).tolist(), door.on_host(found.beam_indices).tolist()


def recorded_search(door, model, rows=3, **call):
    """The texts and beams of a search, and the numbers of its turns, on the host."""
    shown = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    output = door.generate(model, prompts(rows), **{**ASK, **call, **shown})
    found = (output.sequences, output.scores, output.beam_indices)
    numbers = {name: np.stack([door.on_host(turn) for turn in getattr(output, name)]) for name in ("scores", "logits")}
    numbers["sequences_scores"] = door.on_host(output.sequences_scores)
    numbers["transitions"] = door.on_host(model.compute_transition_scores(*found))
    return door.on_host(output.sequences).tolist(), numbers, door.on_host(output.beam_indices).tolist()


def hold_recorded_search(found, expected):
    """The same texts and beams, and numbers within 1e-5."""
    (tokens, numbers, beams), (their_tokens, their_numbers, their_beams) = found, expected
    assert tokens == their_tokens and beams == their_beams
    for name, mine in numbers.items():
        np.testing.assert_allclose(mine, their_numbers[name], rtol=1e-5, atol=1e-5, err_msg=name)


READ = [  # what a row has written, and what it was asked, decides: other prompts are other numbers
    {**PLAIN, "max_new_tokens": 40, **settings}
    for settings in (
        {"encoder_repetition_penalty": 1.3, "encoder_no_repeat_ngram_size": 2},
        {"encoder_repetition_penalty": 0.7, "encoder_no_repeat_ngram_size": 2},
    )
]
MARKED = {
    **SAMPLED,
    "max_new_tokens": 40,
    "watermarking_config": SynthIDTextWatermarkingConfig(keys=[1, 2, 3, 4], ngram_len=3, context_history_size=8),
}
TOKENS = [  # as many, or rounded as many, others
    {"max_new_tokens": 20, "do_sample": False, **lists}
    for lists in (
        {"suppress_tokens": [5], "begin_suppress_tokens": [6, 7], "min_new_tokens": 3, "eos_token_id": [2, 9]},
        {"suppress_tokens": [37, 21, 22], "begin_suppress_tokens": [11], "min_new_tokens": 9, "eos_token_id": [4, 30]},
    )
]
ENDS = [
    {"max_new_tokens": 12, "eos_token_id": ends, "forced_eos_token_id": ends, "exponential_decay_length_penalty": decay}
    for ends, decay in (([2], (3, 1.1)), ([17], (2, 1.3)))
]
