"""The default model writes in TensorFlow what it writes in PyTorch, greedily and drawn, compiled by XLA."""

from __future__ import annotations

import pytest

tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")

from fabula import AutoModelForCausalLM, AutoTokenizer, TFAutoModelForCausalLM  # noqa: E402

TEXTS = ["The capital of France is", "Once upon a time there was a"]


def test_the_default_model_writes_the_same_texts(smollm2_gguf):
    tokenizer = AutoTokenizer.from_pretrained(smollm2_gguf)
    model = TFAutoModelForCausalLM.from_pretrained(smollm2_gguf)
    reference = AutoModelForCausalLM.from_pretrained(smollm2_gguf, backend="torch", dtype="float32")
    for settings in ({"do_sample": False}, {"do_sample": True, "seed": 7, "temperature": 0.9, "top_p": 0.95}):
        ours = model.generate(**tokenizer(TEXTS, return_tensors="tf", padding=True), max_new_tokens=12, **settings)
        right = reference.generate(**tokenizer(TEXTS, return_tensors="pt", padding=True), max_new_tokens=12, **settings)
        assert ours.numpy().tolist() == right.tolist()
    assert (len(model.programs.compiled), len(model.bursts.compiled)) == (1, 2), "prompts; greedy rows, rows that draw"
