"""`compile_config` in PyTorch: the same texts, and nothing is compiled for a step that another step's shapes serve."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

pytest.importorskip("transformers")

from fabula import AutoModelForCausalLM, AutoModelForSeq2SeqLM, CompileConfig  # noqa: E402
from fabula.errors import NotSupportedError  # noqa: E402
from tests.models import configurations  # noqa: E402
from tests.models.encoders import cases as seq2seq_cases  # noqa: E402

PROMPTS = [[72, 101, 108, 108, 111], list(range(40, 70))]
CALL = {"eos_token_id": None, "max_new_tokens": 90}


@pytest.fixture
def model(folder):
    torch._dynamo.reset()
    return AutoModelForCausalLM.from_pretrained(folder, backend="torch")


class Counted:
    """A backend of torch.compile that notes each graph and runs it as it is."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward

    def __deepcopy__(self, memo):
        return self


def test_a_call_compiles_its_forward_once_and_later_calls_not_at_all(model):
    counted = Counted()
    ways = ({}, {"do_sample": True, "seed": 3, "repetition_penalty": 1.2})
    expected = [model.generate(PROMPTS, **CALL, **way) for way in ways]
    config = CompileConfig(backend=counted, mode=None, fullgraph=True)
    found = [model.generate(PROMPTS, compile_config=config, **CALL, **way) for way in ways]
    assert found == expected
    once = counted.graphs
    assert 0 < once <= 4, "for the two sizes of tables that 90 steps need, at most, and of the cache"
    again = model.generate(PROMPTS, compile_config=CompileConfig(backend=counted, mode=None, fullgraph=True), **CALL)
    assert again == expected[0] and counted.graphs == once


@pytest.mark.parametrize("name", ["gemma3-pattern", "gpt2", "mistral-window-of-blocks", "t5-1.1"])
def test_every_family_compiles_whole(tmp_path, name):
    cases = seq2seq_cases if name.startswith("t5") else configurations
    case = next(each for each in cases.CASES if each.name == name)
    (seq2seq_cases.write if cases is seq2seq_cases else configurations.write)(case, tmp_path)
    door = AutoModelForSeq2SeqLM if cases is seq2seq_cases else AutoModelForCausalLM
    model, counted = door.from_pretrained(tmp_path, backend="torch"), Counted()
    call = {"max_new_tokens": 40, "eos_token_id": None, "pad_token_id": 0, "do_sample": False}
    ids = torch.arange(3, 43).reshape(2, 20)
    expected = model.generate(ids, **call).tolist()
    config = CompileConfig(backend=counted, mode=None, fullgraph=True)
    assert model.generate(ids, compile_config=config, **call).tolist() == expected
    assert 0 < counted.graphs <= 3


@pytest.mark.parametrize("way", [{"guidance_scale": 1.5}, {"dola_layers": "low"}], ids=str)
def test_so_do_guided_rows_and_layers_that_are_contrasted(model, way):
    counted = Counted()
    expected = model.generate(PROMPTS, **CALL, **way)
    config = CompileConfig(backend=counted, mode=None, fullgraph=True)
    assert model.generate(PROMPTS, compile_config=config, **CALL, **way) == expected
    assert 0 < counted.graphs <= 4


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_named_backends_give_the_same_texts(model, backend):
    call = {**CALL, "max_new_tokens": 8}
    expected = model.generate(PROMPTS, **call)
    assert model.generate(PROMPTS, compile_config=CompileConfig(backend=backend), **call) == expected


def test_nothing_is_compiled_where_it_is_forbidden_or_nobody_asks(model):
    counted = Counted()
    config = CompileConfig(backend=counted, mode=None)
    model.generate(PROMPTS, compile_config=config, disable_compile=True, **CALL)
    model.generate(PROMPTS, **CALL)
    assert counted.graphs == 0


def test_models_that_torch_does_not_compile_refuse(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, backend="native")
    with pytest.raises(NotSupportedError, match="`compile_config` is for models of backend 'torch'"):
        model.generate(PROMPTS, compile_config=CompileConfig(), max_new_tokens=2)
    assert model.generate(PROMPTS, compile_config=CompileConfig(), disable_compile=True, max_new_tokens=2)
