"""Measures generate() in JAX and TensorFlow against transformers: PyTorch eagerly, and version 4's Flax and TensorFlow.

python bench/frameworks.py [--peer-python PATH] [--threads 2] [--models llama gpt2] [--size small] [--rounds 5]

A CPU, float32. Each side runs in a process of its own and is asked over a pipe: this Python's, or that of
--peer-python (transformers 4.49, Flax and TensorFlow of its time, compiled as its documentation says; it has no Llama
for TensorFlow). Random weights; prompts of 32 random tokens; no token ends a row. A side's first call of each kind is
stated apart: it compiles. Then each round asks all sides, one right after the other, who goes first moving on, with new
prompts of the same shape. Rates are medians; a ratio is a side's rate to that of PyTorch in the same round, then the
median with the lowest and highest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

SIDE = Path(__file__).with_name("frameworks_side.py")
REFERENCE = "transformers torch"
OLD = ("transformers flax", "transformers tensorflow")
PROMPT, NEW, VOCABULARY = 32, 96, {"tiny": 1000, "small": 16000}
KINDS: dict[str, tuple[int, dict[str, Any]]] = {  # rows, what is asked
    "1 row, greedy": (1, {"do_sample": False}),
    "8 rows, greedy": (8, {"do_sample": False}),
    "1 row, sampled": (1, {"do_sample": True, "temperature": 0.8, "top_k": 50, "seed": 7}),
    "8 rows, sampled": (8, {"do_sample": True, "temperature": 0.8, "top_k": 50, "seed": 7}),
}
SIZES = {"tiny": (64, 128, 4, 4, 2), "small": (384, 1024, 8, 6, 3)}  # width, inner, layers, heads, key heads


class Worker:
    """A side in a process of its own."""

    def __init__(self, name: str, python: str, folder: Path, threads: int) -> None:
        self.name = name
        command = [python, str(SIDE), name, str(folder), str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ready(self) -> bool:
        """Whether it came up."""
        assert self.process.stdout is not None
        return bool(self.process.stdout.readline())

    def ask(self, ids: np.ndarray, asked: Mapping[str, Any]) -> dict[str, float]:
        """What one call took."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps({"ids": ids.tolist(), "asked": {**asked, "max_new_tokens": NEW}}), file=self.process.stdin)
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert answer["shape"] == [ids.shape[0], PROMPT + NEW], (self.name, answer)
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def write_model(kind: str, size: str, folder: Path) -> None:
    """A model of random weights, as transformers writes it."""
    import transformers

    width, inner, layers, heads, key_heads = SIZES[size]
    if kind == "llama":
        config = transformers.LlamaConfig(
            vocab_size=VOCABULARY[size], hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=key_heads, max_position_embeddings=1024,
        )  # fmt: skip
    else:
        config = transformers.GPT2Config(
            vocab_size=VOCABULARY[size], n_embd=width, n_layer=layers, n_head=heads, n_positions=1024
        )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def measure(
    workers: Sequence[Worker], kinds: Sequence[str], rounds: int, vocabulary: int, clock: str
) -> dict[str, Any]:
    """kind -> side -> the first call's seconds, and the rate in each round."""
    generator = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for kind in kinds:
        rows, asked = KINDS[kind]
        first, rates = {}, {worker.name: [] for worker in workers}
        for turn in range(rounds + 1):
            ids = generator.integers(3, vocabulary, (rows, PROMPT))
            start = turn % len(workers)
            for worker in [*workers[start:], *workers[:start]]:
                seconds = worker.ask(ids, asked)[clock]
                print(f"{kind}, round {turn}, {worker.name}: {seconds:.2f} s", file=sys.stderr, flush=True)
                if turn:
                    rates[worker.name].append(rows * NEW / seconds)
                else:
                    first[worker.name] = seconds
        found[kind] = {name: {"first call": first[name], "rates": rates[name]} for name in rates}
    return found


def show(model: str, found: Mapping[str, Any]) -> None:
    """A table a model."""
    for kind, sides in found.items():
        reference = sides[REFERENCE]["rates"]
        print(f"\n{model}, {kind}")
        for name, side in sides.items():
            rate = statistics.median(side["rates"])
            ratios = [own / other for own, other in zip(side["rates"], reference, strict=True)]
            compile_time = side["first call"] - KINDS[kind][0] * NEW / rate
            print(
                f"  {name:24} {rate:8.0f} tokens/s   {statistics.median(ratios):6.2f} x PyTorch's "
                f"({min(ratios):.2f} to {max(ratios):.2f})   first call {compile_time:+6.1f} s"
            )
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="a Python with transformers 4.49, Flax and TensorFlow")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", nargs="+", choices=("llama", "gpt2"), default=["llama", "gpt2"])
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--json", type=Path, help="where every sample goes")
    options = parser.parse_args()
    every = {}
    for model in options.models:
        with TemporaryDirectory() as folder, ExitStack() as stack:
            write_model(model, options.size, Path(folder))
            names = [REFERENCE, "fabula jax", "fabula tensorflow", "fabula torch"]
            names += OLD if options.peer_python else ()
            workers = []
            for name in names:
                if name == "transformers tensorflow" and model == "llama":
                    continue  # it has none
                python = options.peer_python if name in OLD else sys.executable
                worker = Worker(name, python, Path(folder), options.threads)
                stack.callback(worker.close)
                if not worker.ready():
                    sys.exit(f"`{name}` did not start. Run: {python} {SIDE} {name!r} FOLDER {options.threads}")
                workers.append(worker)
            every[model] = measure(workers, options.kinds, options.rounds, VOCABULARY[options.size], options.clock)
            show(model, every[model])
    if options.json:
        options.json.write_text(json.dumps(every, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
