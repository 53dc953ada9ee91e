"""Writes what llama.cpp makes of a text: its perplexity, and its greedy tokens after a few prompts.

    python bench/perplexity_reference.py smollm2=PATH.gguf gemma=PATH.gguf [--threads N]

Needs llama-cpp-python and NumPy only. `tests/equal/test_perplexity.py` compares Fabula with the file written here.

The text is tokenized as a whole, without special tokens, and cut into pieces that fill a context of 512 tokens: 511
after a beginning-of-sequence token where the model's file asks for one, 512 otherwise. Each piece is computed from an
empty cache; every token of a context but its first is scored, with all of its context before it.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

CONTEXT = 512
PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a village by the sea, there lived",
    "Water boils at",
    "It is a truth universally acknowledged, that",
    "1, 2, 3, 4, 5,",
)
NEW_TOKENS = 16
DATA = Path(__file__).parents[1] / "tests" / "equal" / "data"


class Model:
    """A model in llama.cpp with one context."""

    def __init__(self, path: Path, threads: int) -> None:
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = CONTEXT
        parameters.n_threads = parameters.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)

    @property
    def start(self) -> list[int]:
        """The beginning-of-sequence token, where the file asks for one."""
        asked = llama_cpp.llama_vocab_get_add_bos(self.vocabulary)
        return [llama_cpp.llama_vocab_bos(self.vocabulary)] if asked else []

    def tokenize(self, text: str) -> list[int]:
        """The text's ids, without special tokens."""
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 1))()
        count = llama_cpp.llama_tokenize(self.vocabulary, data, len(data), ids, len(ids), False, False)
        return list(ids[:count])

    def logits(self, ids: list[int], begin: int = 0) -> np.ndarray:
        """Float32["T V"] after each token, which stand at positions from `begin` on; 0 empties the cache."""
        memory = llama_cpp.llama_get_memory(self.context)
        if begin == 0:
            llama_cpp.llama_memory_clear(memory, True)
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        for index, token in enumerate(ids):
            batch.token[index], batch.pos[index], batch.n_seq_id[index] = token, begin + index, 1
            batch.seq_id[index][0], batch.logits[index] = 0, 1
        batch.n_tokens = len(ids)
        assert llama_cpp.llama_decode(self.context, batch) == 0
        llama_cpp.llama_batch_free(batch)
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), (len(ids), self.size)).copy()


def perplexity(model: Model, ids: list[int]) -> dict[str, Any]:
    """Perplexity of the ids, how many of them were scored, and a digest of all."""
    losses = []
    width = CONTEXT - len(model.start)
    for begin in range(0, len(ids), width):
        context = model.start + ids[begin : begin + width]
        losses.append(token_losses(model.logits(context)[:-1], np.array(context[1:])))
    every = np.concatenate(losses)
    return {
        "tokens": len(ids),
        "scored": len(every),
        "sha256": hashlib.sha256(np.array(ids, "<i4").tobytes()).hexdigest(),
        "starts_with": model.start,
        "perplexity": round(math.exp(every.mean()), 5),
    }


def token_losses(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[tokens]: logits [N, V], tokens [N]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(tokens)), tokens]


def greedy(model: Model, prompt: str) -> dict[str, Any]:
    """The prompt's ids, the best tokens after it, and how far each is above the second best, in logits."""
    ids = model.start + model.tokenize(prompt)
    tokens: list[int] = []
    margins: list[float] = []
    logits = model.logits(ids)[-1]
    while len(tokens) < NEW_TOKENS:
        second, best = np.argsort(logits)[-2:]
        tokens.append(int(best))
        margins.append(round(float(logits[best] - logits[second]), 3))
        logits = model.logits([int(best)], begin=len(ids) + len(tokens) - 1)[-1]
    return {"prompt": prompt, "ids": ids, "tokens": tokens, "margins": margins}


def reference(path: Path, text: str, threads: int) -> dict[str, Any]:
    """All that is written of one model."""
    model = Model(path, threads)
    return perplexity(model, model.tokenize(text)) | {"greedy": [greedy(model, prompt) for prompt in PROMPTS]}


def main() -> None:
    """Reads the arguments, writes tests/equal/data/perplexity.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=PATH")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    llama_cpp.llama_backend_init()
    text = (DATA / "perplexity.txt").read_text(encoding="utf-8")
    models = {}
    for name, _, path in (given.partition("=") for given in arguments.models):
        models[name] = reference(Path(path), text, arguments.threads) | {"file": Path(path).name}
    written = {"llama_cpp_python": llama_cpp.__version__, "context": CONTEXT, "models": models}
    (DATA / "perplexity.json").write_text(json.dumps(written) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
