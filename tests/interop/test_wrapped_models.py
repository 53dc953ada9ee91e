"""A wrapped model gives what its own generate() gives for each prompt alone, and what Fabula's own models give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fabula
from fabula import interop
from fabula.adapters.torch_calls import Way
from tests.interop.tiny_models import CAUSAL, SEQ2SEQ, tiny_model

PROMPTS = [[5, 6, 7, 8, 9, 11, 12, 13], [14, 15, 16]]
LEFT = Way("columns", "left")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module", params=["llama", "gpt2", "mamba", "bart-decoder", "gemma3_text", "t5", "bart"])
def model(request: pytest.FixtureRequest) -> Any:
    seq2seq = request.param in ("t5", "bart")
    return tiny_model(request.param.removesuffix("-decoder"), SEQ2SEQ if seq2seq else CAUSAL)


def alone(model: Any, prompt: list[int], **settings: Any) -> list[list[int]]:
    """The model's own generate(), of one prompt."""
    return model.generate(torch.tensor([prompt]), max_new_tokens=7, do_sample=False, **settings).tolist()


def test_ragged_prompts_are_what_the_model_makes_of_each_alone(model: Any):
    assert interop.wrap(model).generate(PROMPTS, max_new_tokens=7) == [alone(model, one)[0] for one in PROMPTS]


def test_beams_are_what_the_model_makes_of_each_prompt_alone(model: Any):
    settings = {"num_beams": 3, "num_return_sequences": 2}
    mine = interop.wrap(model).generate(PROMPTS, max_new_tokens=7, **settings)
    assert mine == [row for prompt in PROMPTS for row in alone(model, prompt, **settings)]


def test_sampled_rows_are_the_same_alone_and_together(model: Any):
    wrapped = interop.wrap(model)
    settings = {"max_new_tokens": 6, "do_sample": True, "num_return_sequences": 2, "temperature": 2.0}
    together = wrapped.generate(PROMPTS, seed=[4, 5], **settings)
    apart = [wrapped.generate([one], seed=[seed], **settings) for one, seed in zip(PROMPTS, (4, 5), strict=True)]
    assert together == [row for rows in apart for row in rows]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(model: Any, side: str):
    pad = [0] * (len(PROMPTS[0]) - len(PROMPTS[1]))
    ids = torch.tensor([PROMPTS[0], pad + PROMPTS[1] if side == "left" else PROMPTS[1] + pad])
    rows = interop.wrap(model).generate(ids, attention_mask=(ids != 0).long(), max_new_tokens=7)
    width = 1 if model.config.is_encoder_decoder else ids.shape[1]
    want = [alone(model, one)[0][-7:] for one in PROMPTS]
    assert rows[:, width:].tolist() == want


def test_rectangles_are_made_in_the_fastest_way_that_is_exact():
    for kind, way in {"bloom": LEFT, "mamba": Way("own", "left"), "bart": Way("columns", "none")}.items():
        wrapped = interop.wrap(tiny_model(kind))
        wrapped.generate(PROMPTS, max_new_tokens=1)
        assert wrapped.over_blocks is None
        assert wrapped._adapted.way == way


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The same weights wrapped, and as Fabula's own model in PyTorch."""
    folder = tmp_path_factory.mktemp("llama")
    model = tiny_model("llama")
    model.save_pretrained(folder)
    mine = fabula.AutoModelForCausalLM.from_pretrained(folder, backend="torch")
    mine.generation_config.eos_token_id = None
    return interop.wrap(model), mine


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True, "seed": 3, "num_return_sequences": 3},
        {"num_beams": 4},
        {"num_beams": 4, "do_sample": True, "seed": 5},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"prompt_lookup_num_tokens": 4},
        {"guidance_scale": 1.5, "negative_prompt_ids": torch.tensor([[21, 22, 23]])},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_strategies_are_those_of_our_own_model(twins: tuple[Any, Any], settings: dict[str, Any]):
    prompt = torch.tensor([[5, 6, 7, 5, 6, 7, 5, 6]])
    wrapped, mine = (one.generate(prompt, max_new_tokens=10, **settings).tolist() for one in twins)
    assert wrapped == mine


def test_the_model_stays_as_it_is():
    model = tiny_model("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = model.generation_config.to_dict()
    wrapped = interop.wrap(model)
    wrapped.generate(PROMPTS, max_new_tokens=3)
    assert model.generation_config.to_dict() == settings
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(wrapped(torch.tensor([[1, 2]])).logits, model(torch.tensor([[1, 2]])).logits)


def test_what_is_no_model_of_transformers_is_refused():
    with pytest.raises(fabula.ArgumentError, match="`model` must be a PreTrainedModel"):
        interop.wrap(torch.nn.Linear(2, 2))


def test_hidden_states_of_a_wrapped_model_are_those_of_the_model():
    model = tiny_model("llama")
    asked = {"max_new_tokens": 3, "return_dict_in_generate": True, "output_hidden_states": True}
    mine = interop.wrap(model).generate(torch.tensor(PROMPTS[:1]), **asked).hidden_states
    right = model.generate(torch.tensor(PROMPTS[:1]), do_sample=False, **asked).hidden_states
    for step, (one, other) in enumerate(zip(mine, right, strict=True)):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=f"step {step}")


def test_importing_fabula_and_its_interop_imports_no_framework():
    told = "import sys, fabula, fabula.interop; print({'torch', 'transformers'} & set(sys.modules))"
    root = Path(fabula.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "set()"
