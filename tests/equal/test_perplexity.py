"""On packed weights Fabula predicts a text as well as llama.cpp does on the same files, or better.

`bench/perplexity_reference.py` made data/perplexity.json and says what is scored.
"""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest

from fabula import AutoModelForCausalLM
from fabula.cache.blocks import blocks_for
from fabula.cli.score import token_losses, window_batch

DATA = Path(__file__).parent / "data"
REFERENCE = json.loads((DATA / "perplexity.json").read_text(encoding="utf-8"))
PIECE = 32  # rows of logits at once: a row of Gemma's has 262,144
SURE = 2.0  # logits: where llama.cpp's best token leads by more, rounding activations cannot change the choice


@pytest.fixture(scope="module", params=["smollm2", "gemma"])
def packed(request):
    """The model on its packed weights, and what llama.cpp made of the same file."""
    path = request.getfixturevalue(f"{request.param}_gguf")
    return AutoModelForCausalLM.from_pretrained(path, backend="native"), REFERENCE["models"][request.param]


@pytest.fixture(scope="module")
def ids(packed):
    """The text's ids, without special tokens."""
    text = (DATA / "perplexity.txt").read_text(encoding="utf-8")
    return packed[0].tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_text_has_the_tokens_that_were_scored(packed, ids):
    _, reference = packed
    assert reference["scored"] >= 4000
    assert len(ids) == reference["tokens"]
    assert hashlib.sha256(np.array(ids, "<i4").tobytes()).hexdigest() == reference["sha256"]


def test_perplexity_is_llama_cpps_or_nearer_the_exact_one(packed, ids):
    """Within 1 % of llama.cpp's, or nearer than it to what the dequantized weights give."""
    model, reference = packed
    exact = AutoModelForCausalLM.from_pretrained(model.name_or_path, dtype="float32", backend="native")
    ours, truth = (perplexity(each, ids, reference) for each in (model, exact))
    theirs = reference["perplexity"]
    print(f"{reference['file']}: {ours:.4f}, exact {truth:.4f}, llama.cpp's {theirs:.4f}")
    assert ours < 1.01 * theirs
    assert abs(ours / truth - 1) < 0.01
    assert ours > 0.99 * theirs or abs(ours - truth) < abs(theirs - truth)


def perplexity(model, ids, reference):
    """Of the committed text, window by window, as the reference has it."""
    losses = text_losses(model, ids, reference["starts_with"], REFERENCE["context"])
    assert len(losses) == reference["scored"]
    return math.exp(losses.mean())


def test_greedy_tokens_are_llama_cpps_while_it_is_sure(packed):
    model, reference = packed
    for case in reference["greedy"]:
        unsure = (step for step, margin in enumerate(case["margins"]) if margin < SURE)
        sure = next(unsure, len(case["tokens"]))
        assert model.tokenizer(case["prompt"])["input_ids"] == case["ids"]
        new = greedy(model, case["ids"], len(case["tokens"]))
        assert new[:sure] == case["tokens"][:sure], case["prompt"]


def greedy(model, prompt, count):
    """So many best tokens after the prompt, whatever they are."""
    model.generation_config.eos_token_id = None
    return model.generate([prompt], max_new_tokens=count, do_sample=False)[0][len(prompt) :]


def text_losses(model, ids, start, context):
    """-log p of every token of each context but its first."""
    cache = model.new_cache(blocks_for(context))
    width = context - len(start)
    losses = []
    for begin in range(0, len(ids), width):
        whole = np.array(start + ids[begin : begin + width])
        logits = model.step(window_batch(whole[:-1], 0), cache).logits
        for piece in range(0, len(logits), PIECE):
            losses.append(token_losses(logits[piece : piece + PIECE], whole[1 + piece : 1 + piece + PIECE]))
    return np.concatenate(losses)
