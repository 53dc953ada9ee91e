"""What people hand to generate(), right and wrong, and what many calls at once or one after another leave behind."""

import gc
import os
import re
import threading
import weakref

import numpy as np
import pytest

from fabula import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer, set_seed
from fabula.errors import ArgumentError, NotSupportedError

torch = pytest.importorskip("torch")
IDS = torch.tensor([[72, 101, 108, 108, 111]])
NO_EOS = {"eos_token_id": None}


def fails(input_ids, scores):
    raise ZeroDivisionError("of the caller's own")


def test_a_callers_processor_that_raises_ends_its_own_call_and_no_other(model):
    expected = model.generate(IDS, max_new_tokens=30, **NO_EOS)
    together, found = threading.Barrier(3), []

    def others():
        together.wait()
        for _ in range(5):
            found.append(torch.equal(model.generate(IDS, max_new_tokens=30, **NO_EOS), expected))

    threads = [threading.Thread(target=others) for _ in range(2)]
    for thread in threads:
        thread.start()
    together.wait()
    for _ in range(20):
        with pytest.raises(ZeroDivisionError, match="caller's own"):
            model.generate(IDS, max_new_tokens=30, logits_processor=[fails])
    for thread in threads:
        thread.join()
    assert found == [True] * 10
    model.engine.pool.check([])
    assert not model.engine.tickets


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_model_that_nobody_holds_is_gone_at_once(folder, backend):
    model = AutoModelForCausalLM.from_pretrained(folder, backend=backend)
    model.generate(IDS, max_new_tokens=2)
    gone = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("inputs", "more", "message"),
    [
        (torch.tensor([[2**32 + 1]]), {}, "`input_ids` row 0 must hold ids of the vocabulary, got 4294967297"),
        (torch.tensor([[2**40]]), {}, "`input_ids` row 0 must hold ids"),
        ("hello", {}, r"`input_ids` must be numbers.*got str.*tokenizer\("),
        (["hello"], {}, r"`inputs\[0\]` must be numbers.*got str"),
        (7, {}, "`input_ids` must be numbers.*got int"),
        (IDS, {"attention_mask": "x"}, "`attention_mask` must be numbers.*got str"),
        ([[1, 2], [3]], {"attention_mask": [[1], [1]]}, r"`attention_mask`\[0\] must hold 0 or 1 for each of 2 ids"),
        ([[1, 2], [3]], {"attention_mask": [[1, 1]]}, "one list a prompt, 2"),
        ([[1, 2]], {"attention_mask": [[1, 1], [1]]}, "one list a prompt, 1"),
        ([[1, 2]], {"attention_mask": [[0, 0]]}, r"and a 1, got \[0, 0\]"),
        ([[1, 2]], {"attention_mask": 1}, "one list a prompt, 1, got 1"),
        (
            IDS,
            {"generation_config": {"max_new_tokens": 2}},
            "`generation_config` must be .*GenerationConfig.*, got dict",
        ),
        ({"input_ids": IDS}, {"input_ids": IDS}, "`input_ids` must be given once"),
        (IDS, {"logits_processor": [lambda ids, scores: scores[:, :5]]}, r"`logits_processor` <lambda> .*got \[1, 5\]"),
        (IDS, {"stopping_criteria": [lambda ids, scores: None]}, "`stopping_criteria` must return .* got None"),
        (IDS, {"prefix_allowed_tokens_fn": lambda row, ids: [9999]}, r"\[0, 259\), got \[9999\] for batch 0"),
        (IDS, {"prefix_allowed_tokens_fn": lambda row, ids: [-1]}, r"\[0, 259\), got \[-1\]"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(model, inputs, more, message):
    with pytest.raises(ArgumentError, match=re.compile(message, re.DOTALL)):
        model.generate(inputs, max_new_tokens=2, **more)


def test_positions_that_hold_anyway_are_taken_and_others_refused(model):
    padded = {
        "input_ids": torch.tensor([[258, 258, 72], [1, 2, 3]]),
        "attention_mask": torch.tensor([[0, 0, 1], [1] * 3]),
    }
    expected = model.generate(**padded, max_new_tokens=3)
    for filled in (0, 1):
        positions = torch.tensor([[filled, filled, 0], [0, 1, 2]])
        assert torch.equal(model.generate(**padded, position_ids=positions, max_new_tokens=3), expected)
    assert model.generate([[1, 2]], position_ids=[[0, 1]], max_new_tokens=2)
    for wrong in (torch.tensor([[0, 1, 2], [0, 1, 2]]), torch.arange(2)[None], torch.arange(3)):
        with pytest.raises(NotSupportedError, match="`position_ids` must count"):
            model.generate(**padded, position_ids=wrong, max_new_tokens=3)
    with pytest.raises(NotSupportedError, match="`position_ids`"):
        model.generate([[1, 2]], position_ids=[[5, 6]], max_new_tokens=2)


@pytest.mark.parametrize("argument", [{"trust_remote_code": True}, {"custom_generate": "some/repository"}])
def test_code_from_a_models_files_is_refused_by_name(model, argument):
    with pytest.raises(NotSupportedError, match=f"`{next(iter(argument))}` is not supported: Fabula runs no code"):
        model.generate(IDS, max_new_tokens=1, **argument)


def test_without_inputs_the_framework_is_the_models(folder):
    for backend, kind in (("native", np.ndarray), ("torch", torch.Tensor)):
        model = AutoModelForCausalLM.from_pretrained(folder, backend=backend)
        assert isinstance(model.generate(max_new_tokens=2), kind)


def test_a_warning_about_the_mask_points_at_the_callers_line(model):
    with pytest.warns(UserWarning, match="attention mask is not set and cannot be inferred") as caught:
        model.generate(torch.tensor([[1, 256], [3, 4]]), max_new_tokens=1, pad_token_id=256)
    assert [warning.filename for warning in caught] == [__file__]


def test_a_streamer_hears_of_a_call_that_is_refused(model, folder):
    streamer = TextIteratorStreamer(AutoTokenizer.from_pretrained(folder), timeout=20)
    with pytest.raises(ArgumentError, match="max_new_tokens"):
        model.generate(IDS, max_new_tokens=-5, streamer=streamer)
    with pytest.raises(ArgumentError, match="max_new_tokens"):
        list(streamer)


def test_a_models_own_settings_must_be_a_generation_config(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config = {"max_new_tokens": 2}
    with pytest.raises(ArgumentError, match=r"`model.generation_config` must be .*, got dict"):
        model.generate(IDS)


def test_a_seed_may_be_an_integer_of_numpy(model):
    texts = []
    for seed in (np.int64(3), 3, np.uint8(4)):
        set_seed(seed)
        texts.append(model.generate(IDS, do_sample=True, max_new_tokens=8, **NO_EOS).tolist())
    assert texts[0] == texts[1] != texts[2]


def test_many_calls_leave_no_memory_behind(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def call():
        model.generate(torch.randint(0, 250, (2, 20)), do_sample=True, max_new_tokens=4, **NO_EOS)

    if not os.path.exists("/proc/self/statm"):
        pytest.skip("/proc tells how much memory is resident")
    for _ in range(30):
        call()
    before = resident()
    for _ in range(200):
        call()
    assert resident() - before < 16 << 20
