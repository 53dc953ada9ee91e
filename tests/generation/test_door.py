"""What people hand to generate(), right and wrong, and what many calls at once or one after another leave behind."""

import gc
import re
import threading
import weakref

import numpy as np
import pytest

from fabula import AutoModelForCausalLM
from fabula.testing.tiny_model import write_tiny_model

torch = pytest.importorskip("torch")
IDS = torch.tensor([[72, 101, 108, 108, 111]])
NO_EOS = {"eos_token_id": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=["native", "torch"])
def model(request, folder):
    return AutoModelForCausalLM.from_pretrained(folder, backend=request.param)


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
