"""The library is found where it was built, refuses what it cannot do, and its threads survive what processes do."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from fabula.errors import ArgumentError
from fabula.kernels.library import load_library
from tests.ops.native_cases import ISAS, one_row, small_model

TOKENS = np.arange(40)


def test_without_the_file_there_is_no_library(tmp_path):
    assert load_library(tmp_path) is None


def test_a_damaged_file_is_no_library(tmp_path):
    from fabula.kernels.library import library_path

    library_path(tmp_path).write_bytes(b"not a shared library")
    assert load_library(tmp_path) is None


needs_library = pytest.mark.skipif(not ISAS, reason="the kernels are not built")


@needs_library
def test_an_unknown_instruction_set_is_refused_with_those_that_are_here():
    with pytest.raises(ArgumentError, match=r"isa must be one of portable.*got 'sse9'"):
        load_library().set_isa("sse9")


def logits_of(model):
    return np.array(model.step(one_row(TOKENS), model.new_cache(2)).logits)


@needs_library
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_starts_threads_of_its_own():
    model = small_model("llama", "Q4_0", ISAS[-1], threads=3)
    expected = logits_of(model)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(logits_of(model), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(logits_of(model), expected)


@needs_library
def test_models_run_in_several_python_threads_at_once():
    models = [small_model("llama", "Q4_0", ISAS[-1], threads=2) for _ in range(3)]
    expected, seen = logits_of(models[0]), []

    def work(model):
        seen.extend(np.array_equal(logits_of(model), expected) for _ in range(30))

    workers = [threading.Thread(target=work, args=(model,)) for model in models]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(seen) == 90
    assert all(seen)
