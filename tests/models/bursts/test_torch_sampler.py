"""On a CPU a model in PyTorch chooses by the kernels, and what it chooses is what the array functions choose."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fabula import AutoModelForCausalLM  # noqa: E402
from fabula.kernels.library import load_library  # noqa: E402
from fabula.kernels.sampling import RowChoice  # noqa: E402
from fabula.models.bursts.torch_sampler import torch_sampler  # noqa: E402
from fabula.testing.tiny_model import write_tiny_model  # noqa: E402

CALLS = (
    {"do_sample": True, "top_k": 0, "seed": 3},
    {"do_sample": True, "top_k": 12, "top_p": 0.9, "temperature": 0.8, "seed": 4},
    {"do_sample": False, "repetition_penalty": 1.3},
)


@pytest.fixture(autouse=True)
def built():
    if load_library() is None:
        pytest.skip("the kernels are not built")


def test_the_sampler_reads_logits_that_are_not_contiguous():
    logits = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (50, 4)).astype(np.float32)).T
    tokens = torch_sampler()(logits, [RowChoice()] * 4)
    assert tokens.tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
def test_texts_are_those_of_the_array_functions(call, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(write_tiny_model(tmp_path / "model"), backend="torch")
    call = {"max_new_tokens": 24, "eos_token_id": None, "return_dict_in_generate": True, **call}
    fast = model.generate([[5, 6, 7], [8, 9]], **call)
    plain = model.generate([[5, 6, 7], [8, 9]], output_scores=True, **call)  # scores are the array functions' to give
    assert [list(row) for row in fast.sequences] == [list(row) for row in plain.sequences]


def test_a_model_keeps_one_sampler_and_a_copy_gets_its_own(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(write_tiny_model(tmp_path / "model"), backend="torch")
    assert model.sampler is model.sampler
    assert copy.deepcopy(model).sampler is not model.sampler
