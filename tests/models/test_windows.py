"""Layers with a window read the blocks that it can see, in single steps and in loops, and the texts stay the same."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fabula import AutoModelForCausalLM  # noqa: E402
from fabula.cache.blocks import BLOCK  # noqa: E402
from fabula.testing.tiny_model import write_tiny_model  # noqa: E402
from tests.equal.frameworks.doors import DOORS  # noqa: E402

WINDOW = 9
PROMPTS = [np.random.default_rng(row).integers(3, 250, length).tolist() for row, length in enumerate((170, 100))]
CALL = {"eos_token_id": None, "pad_token_id": 0}
CALLS = {
    "a loop": {"max_new_tokens": 24},
    "steps": {"max_new_tokens": 4, "prefill_chunk_size": 64, "use_cache": False, "max_time": 3600},  # for the clock
    "beams": {"max_new_tokens": 12, "num_beams": 2},
    "contrastive search": {"max_new_tokens": 8, "penalty_alpha": 0.6, "top_k": 2},
    "weights": {"max_new_tokens": 2, "output_attentions": True, "return_dict_in_generate": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(
        tmp_path_factory.mktemp("gemma3"),
        model_type="gemma3_text",
        architectures=["Gemma3ForCausalLM"],
        hidden_size=32,
        intermediate_size=48,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
    )


@pytest.fixture(scope="module")
def reference(folder):
    return AutoModelForCausalLM.from_pretrained(folder, backend="torch", dtype="float32")


@pytest.fixture(scope="module", params=["jax", "tensorflow"])
def backend(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture(scope="module")
def model(folder, backend):
    model = DOORS[backend].load(folder)
    if backend == "tensorflow":
        model.programs.xla = False
    return model


@pytest.mark.parametrize("name", CALLS)
def test_a_window_reads_what_it_sees(model, reference, backend, name, monkeypatch):
    read, operations = {}, importlib.import_module(f"fabula.ops.{backend}")
    attend = operations.attend

    def noted(q, k, v, spec, *rest):
        width = k.shape[1 if backend == "tensorflow" else 2]
        read.setdefault((spec.window, q.shape[1]), set()).add(width // BLOCK)
        return attend(q, k, v, spec, *rest)

    monkeypatch.setattr(operations, "attend", noted)
    call = {**CALL, **CALLS[name]}
    found, expected = (one.generate(PROMPTS, **call) for one in (model, reference))
    if name == "weights":
        assert found.sequences == expected.sequences
        for pair in zip(found.attentions[-1], expected.attentions[-1], strict=True):
            ours, right = map(np.asarray, pair)
            np.testing.assert_allclose(ours.sum(-1), 1, rtol=1e-5)
            np.testing.assert_allclose(ours, right, rtol=1e-4, atol=1e-5)
        return
    assert found == expected
    if name == "steps":
        assert max(read[None, 1]) == 8 and max(read[WINDOW, 1]) == 2
        assert max(read[None, 64]) == 8 and max(read[WINDOW, 64]) == 4
    else:
        assert 8 in read[None, 1] and max(read[WINDOW, 1]) == (5 if name == "beams" else 4)
