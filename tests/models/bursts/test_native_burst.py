"""The native model runs many steps in one call of its kernels, and nobody can tell from the text."""

import numpy as np
import pytest

from fabula import AutoModelForCausalLM, GenerationConfig
from fabula.errors import NumericalError
from fabula.kernels.library import load_library
from fabula.testing.tiny_model import write_tiny_model

pytestmark = pytest.mark.skipif(load_library() is None, reason="the kernels are not built")
PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8], [9]]
MANY = 150  # more steps than a burst has


class Watched:
    """A native model that notes how many steps each burst had."""

    def __init__(self, folder, **settings):
        self.model = AutoModelForCausalLM.from_pretrained(folder, **settings)
        self.counts = []
        inner = self.model._native.burst
        self.model._native.burst = lambda *arguments: self._noted(inner(*arguments))

    def _noted(self, tokens):
        self.counts.append(len(tokens))
        return tokens

    def generate(self, prompts, **settings):
        """The rows, which may come in bursts, and the same rows from a call that wants each token at once."""
        self.counts.clear()
        rows = self.model.generate(prompts, **settings)
        bursts = list(self.counts)
        alone = self.model.generate(prompts, streamer=Silent(), **settings)
        assert self.counts == bursts, "a streamer waited for a burst"
        return rows, alone, bursts


class Silent:
    takes_rows = True

    def put(self, ids, row=0):
        pass

    def end_row(self, row):
        pass

    def end(self):
        pass


@pytest.fixture(scope="module", params=["packed", "4bit"])
def watched(request, tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny"), max_position_embeddings=512)
    return Watched(folder, load_in_4bit=request.param == "4bit", threads=2)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": False},
        {"do_sample": True, "seed": 5, "top_k": 0},
        {"do_sample": True, "seed": [7, 8, 9], "temperature": 0.7, "top_k": 9, "top_p": 0.8, "min_p": 0.01},
        {"do_sample": True, "seed": 2, "repetition_penalty": 1.3, "top_p": 1.0, "num_return_sequences": 2},
    ],
)
def test_bursts_change_no_text(watched, settings):
    rows, alone, bursts = watched.generate(PROMPTS, max_new_tokens=MANY, eos_token_id=None, **settings)
    assert rows == alone
    assert sum(bursts) >= MANY - 3 and max(bursts) > 1


def test_a_row_ends_where_it_would_end_step_by_step(watched):
    rows, _, _ = watched.generate(PROMPTS, max_new_tokens=40, eos_token_id=None, do_sample=True, seed=3)
    ends = [rows[0][len(PROMPTS[0]) + 10], rows[1][len(PROMPTS[1]) + 25]]
    rows, alone, bursts = watched.generate(PROMPTS, max_new_tokens=40, eos_token_id=ends, do_sample=True, seed=3)
    assert rows == alone and bursts
    for row in rows:
        assert len(row) > 20 or row[-1] in ends


def test_rows_with_other_processors_go_step_by_step(watched):
    rows, alone, bursts = watched.generate(PROMPTS, max_new_tokens=20, min_new_tokens=20, no_repeat_ngram_size=2)
    assert rows == alone and not bursts


def test_a_greedy_row_stays_greedy_beside_one_with_a_temperature(watched):
    greedy = GenerationConfig(do_sample=False, max_new_tokens=30, eos_token_id=None)
    drawn = GenerationConfig(do_sample=True, temperature=0.7, max_new_tokens=30, eos_token_id=None)
    rows, alone, bursts = watched.generate(PROMPTS[:2], generation_config=[greedy, drawn], seed=3)
    assert rows == alone and bursts


def test_one_row_that_hits_its_limit_early_leaves_the_others_going(watched):
    prompts = [[1 + place % 250 for place in range(489)], [1, 2]]
    rows, alone, bursts = watched.generate(prompts, max_new_tokens=30, eos_token_id=None)
    assert rows == alone and bursts


def test_scores_that_are_no_numbers_fail_as_they_do_step_by_step(tmp_path):
    watched = Watched(write_tiny_model(tmp_path))
    (program,) = watched.model._native._programs.values()
    norm = next(each for each in reversed(program.program.instructions) if each.weights)
    norm.weights[0][:] = np.nan
    with pytest.raises(NumericalError):
        watched.model.generate([[1, 2, 3]], max_new_tokens=8)
