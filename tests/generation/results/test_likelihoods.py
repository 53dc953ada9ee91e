"""Log-probabilities are the log-softmax of the raw logits, for the prompt's tokens, new ones and the likeliest."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")


PROMPTS = [[3, 5, 9, 4, 7], [8, 2]]
CALL = {
    "max_new_tokens": 6,
    "return_dict_in_generate": True,
    "output_log_probabilities": True,
    "output_prompt_log_probabilities": True,
    "top_log_probabilities": 3,
    "pad_token_id": 0,
    "eos_token_id": None,
}


def expected_after(model, tokens):
    """Float["L V"]: the log-probabilities after each token."""
    logits = model(torch.tensor([tokens])).logits
    return torch.log_softmax(torch.as_tensor(logits[0]).detach().float(), -1).numpy()


def assert_scored(expected, tokens, positions, found, top):
    """The values found at positions of a row, and the likeliest tokens there."""
    found = np.asarray(found)[: len(positions)]
    np.testing.assert_allclose(found, expected[positions - 1, np.array(tokens)[positions]], atol=1e-4)
    for position, best in zip(positions, top, strict=True):
        ids, values = zip(*best, strict=True)
        assert len(ids) == 3
        np.testing.assert_allclose(values, np.sort(expected[position - 1])[::-1][:3], atol=1e-4)
        np.testing.assert_allclose(values, expected[position - 1, list(ids)], atol=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"repetition_penalty": 1.7},
        {"do_sample": True, "seed": 5, "num_return_sequences": 2},
        {"num_beams": 3, "num_return_sequences": 2},
        {"penalty_alpha": 0.5, "top_k": 3},
    ],
    ids=["greedy", "processed", "sampled", "beams", "contrastive"],
)
def test_every_token_is_given_its_log_probability(model, call):
    output = model.generate(PROMPTS, **CALL, **call)
    rows = call.get("num_return_sequences", 1)
    assert len(output.sequences) == 2 * rows
    for place, sequence in enumerate(output.sequences):
        length, expected = len(PROMPTS[place // rows]), expected_after(model, sequence)
        new = (output.log_probabilities[place], output.top_log_probabilities[place])
        assert_scored(expected, sequence, np.arange(length, len(sequence)), *new)
        prompt = (output.prompt_log_probabilities[place // rows], output.prompt_top_log_probabilities[place // rows])
        assert_scored(expected, sequence, np.arange(1, length), *prompt)


def test_a_prompt_of_several_chunks_is_scored_as_in_one_piece(model):
    prompt = np.random.default_rng(0).integers(0, 250, 490).tolist()
    model.engine.scheduler.tokens, before = 64, model.engine.scheduler.tokens
    try:
        output = model.generate([prompt], **{**CALL, "max_new_tokens": 2})
    finally:
        model.engine.scheduler.tokens = before
    found = (output.prompt_log_probabilities[0], output.prompt_top_log_probabilities[0])
    assert_scored(expected_after(model, prompt), prompt, np.arange(1, len(prompt)), *found)
