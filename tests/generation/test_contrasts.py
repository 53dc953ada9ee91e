"""Contrastive search and DoLa through generate(): their outputs, batches, and what does not go together."""

from __future__ import annotations

import numpy as np
import pytest

from fabula import AutoModelForCausalLM
from fabula.errors import ArgumentError
from fabula.testing.tiny_model import write_tiny_model

PROMPTS = [[72, 101, 108, 108, 111], [97, 98, 97, 98, 97], list(range(40, 90))]
MODES = {
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "contrastive with a penalty": {"penalty_alpha": 0.4, "top_k": 6, "repetition_penalty": 1.3, "low_memory": True},
    "layers": {"dola_layers": "low"},
    "drawn layers": {"dola_layers": [1, 2], "do_sample": True, "seed": [4, 4, 4], "top_k": 9},
}


@pytest.fixture(scope="module", params=["native", "torch"])
def model(request, tmp_path_factory):
    if request.param == "torch":
        pytest.importorskip("torch")
    folder = write_tiny_model(tmp_path_factory.mktemp("model"), num_hidden_layers=4)
    return AutoModelForCausalLM.from_pretrained(folder, backend=request.param)


@pytest.mark.parametrize("mode", MODES)
def test_a_row_in_a_batch_is_the_row_alone(model, mode):
    settings = {"max_new_tokens": 16, "eos_token_id": [10, 11, 200], "pad_token_id": 258, **MODES[mode]}
    together = model.generate(PROMPTS, **settings)
    for prompt, row in zip(PROMPTS, together, strict=True):
        alone = dict(settings, seed=settings["seed"][:1]) if "seed" in settings else settings
        assert model.generate([prompt], **alone)[0] == row
    assert together != model.generate(PROMPTS, max_new_tokens=16, eos_token_id=[10, 11, 200], pad_token_id=258)


@pytest.mark.parametrize("mode", ["contrastive", "layers"])
def test_scores_and_logits_are_those_that_the_tokens_were_chosen_from(model, mode):
    out = model.generate(
        PROMPTS[:1], max_new_tokens=8, eos_token_id=None, return_dict_in_generate=True, output_scores=True,
        output_logits=True, **MODES[mode],
    )  # fmt: skip
    ids = list(map(int, out.sequences[0]))
    assert len(out.scores) == len(out.logits) == 8
    for place in range(8):
        expected = read(model, ids[: 5 + place])[0]
        assert np.allclose(np.asarray(out.logits[place])[0], expected, atol=1e-3)
        scores = np.asarray(out.scores[place])[0]
        if mode == "contrastive":
            assert np.array_equal(scores, np.asarray(out.logits[place])[0])
            assert ids[5 + place] in np.argsort(-scores)[:4]
        else:
            assert ids[5 + place] == scores.argmax()
            assert (scores == -np.inf).any()


def test_contrastive_search_is_its_definition_over_the_models_own_states(model):
    (row,) = model.generate(PROMPTS[:1], max_new_tokens=6, eos_token_id=None, penalty_alpha=0.6, top_k=4)
    ids = list(PROMPTS[0])
    for _ in range(6):
        logits, states = read(model, ids)
        chances = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()

        def worth(token, ids=ids, states=states, chances=chances):
            new = read(model, [*ids, token])[1][-1]
            return 0.4 * chances[token] - 0.6 * (states @ new).max()

        ids.append(int(max(np.argsort(-chances)[:4], key=worth)))
    assert list(map(int, row)) == ids


def read(model, ids):
    """The logits after a row, and the directions of its final hidden states."""
    from fabula.taps import Taps
    from tests.models.steps import tapped_step

    forward = tapped_step(model, [ids], Taps(final_hidden=True))
    hidden = np.asarray(forward.hidden, np.float64)
    return np.asarray(forward.logits, np.float64)[-1], hidden / np.linalg.norm(hidden, axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("call", "name"), [({"dola_layers": [4]}, "dola_layers"), ({"penalty_alpha": 1.5, "top_k": 4}, "penalty_alpha")]
)
def test_what_makes_no_sense_is_refused(model, call, name):
    with pytest.raises(ArgumentError, match=name):
        model.generate(PROMPTS, max_new_tokens=4, **call)
