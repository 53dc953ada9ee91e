"""Measures every strategy against transformers' on the same backend and weights: PyTorch, a CPU, float32.

python bench/strategies.py [--peer-python PATH] [--threads 1] [--models tiny small] [--only beam] [--rounds 7]

Models of Llama's shape with random weights are written to a folder of their own. Each round runs a strategy on both
sides, one right after the other, who goes first alternates, with prompts of its own and no token that ends a row; a
ratio is transformers' time to Fabula's in the same round, and the median of the rounds is printed with the lowest and
highest. transformers runs in a process of its own: this Python's, or that of --peer-python (transformers 4.49 to 4.56)
for the modes that version 5 moved out. Times are the processor's (`--clock wall` for those of the clock: on a machine
that does nothing else).

Then the host's cost: microseconds a step that generate() takes outside the model's pass, at one row of the tiny model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from fabula import AutoModelForCausalLM
from fabula.models.families.config import ModelConfig
from fabula.models.families.table import family_for
from fabula.models.weights.table import placed_entries

PEER = Path(__file__).with_name("strategies_transformers.py")
PROMPT = 32  # tokens


@dataclass(frozen=True, slots=True)
class Shape:
    """A model, and how many tokens it makes in a call."""

    sizes: dict[str, int]
    new: int


SHAPES = {
    "tiny": Shape({"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
                   "num_key_value_heads": 2, "vocab_size": 1000}, 48),
    "small": Shape({"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 6,
                    "num_key_value_heads": 3, "vocab_size": 16000}, 32),
    "smollm2": Shape({"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                      "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152}, 12),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A strategy: the call's settings, and which transformers has it."""

    name: str
    settings: dict[str, Any]
    old: bool = False  # moved out of transformers 5
    alone: bool = False  # transformers has it for one row only


CASES = (
    Case("greedy", {}),
    Case("sampling", {"do_sample": True, "top_k": 0}),
    Case("sampling, top-k and top-p", {"do_sample": True, "top_k": 50, "top_p": 0.9}),
    Case("repetition penalty", {"repetition_penalty": 1.2}),
    Case("beam search", {"num_beams": 4}),
    Case("beam sampling", {"num_beams": 4, "do_sample": True, "top_k": 0}),
    Case("guidance", {"guidance_scale": 1.5}),
    Case("prompt lookup", {"prompt_lookup_num_tokens": 5}, alone=True),
    Case("assisted", {"assistant_model": "first half", "num_assistant_tokens": 5,
                      "num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.0}, alone=True),
    Case("contrastive search", {"penalty_alpha": 0.6, "top_k": 4}, old=True),
    Case("DoLa, upper layers", {"dola_layers": "high", "repetition_penalty": 1.2}, old=True),
    Case("DoLa, lower layers", {"dola_layers": "low", "repetition_penalty": 1.2}, old=True),
    Case("diverse beam search", {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0}, old=True),
    Case("constrained beam search", {"num_beams": 4, "force_words_ids": [[11, 12], [21]]}, old=True),
)  # fmt: skip
HOST = (
    ("greedy", {}),
    ("sampling", {"do_sample": True, "top_k": 0}),
    ("repetition penalty", {"repetition_penalty": 1.2}),
    ("no repeated 3-gram", {"no_repeat_ngram_size": 3}),
    ("bad words", {"bad_words_ids": [[5], [6, 8]]}),
    ("top-k, top-p, temperature", {"do_sample": True, "top_k": 50, "top_p": 0.9, "temperature": 0.7}),
    ("beam search", {"num_beams": 4}),
    ("beam sampling", {"num_beams": 4, "do_sample": True, "top_k": 0}),
    ("diverse beam search", {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0}),
    ("constrained beam search", {"num_beams": 4, "force_words_ids": [[11, 12], [21]]}),
    ("contrastive search", {"penalty_alpha": 0.6, "top_k": 4}),
    ("DoLa", {"dola_layers": "high"}),
    ("guidance", {"guidance_scale": 1.5}),
    ("prompt lookup", {"prompt_lookup_num_tokens": 5}),
)


def write_model(folder: Path, sizes: dict[str, int]) -> Path:
    """A checkpoint with random weights, large enough that the layers have a say."""
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True,
        "head_dim": sizes["hidden_size"] // sizes["num_attention_heads"], "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32", **sizes,
    }  # fmt: skip
    generator = np.random.default_rng(0)
    entries = [entry for _, _, entry in placed_entries(family_for(ModelConfig.from_dict(config)))]
    tensors = {
        entry.name: np.ones(entry.shape, np.float32)
        if len(entry.shape) == 1
        else generator.normal(0, entry.shape[-1] ** -0.5, entry.shape).astype(np.float32)
        for entry in entries
        if not entry.optional and not entry.tied
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class Ours:
    """Fabula on its torch backend, in this process."""

    def __init__(self) -> None:
        self.models: dict[str, Any] = {}

    def model(self, folder: str) -> Any:
        if folder not in self.models:
            self.models[folder] = AutoModelForCausalLM.from_pretrained(folder, backend="torch", dtype="float32")
        return self.models[folder]

    def measure(self, folder: str, prompts: list[list[int]], settings: dict[str, Any]) -> dict[str, Any]:
        """Seconds of one call, on the clock and of the processor, and the new tokens."""
        model, call = self.model(folder), dict(settings)
        if "assistant_model" in call:
            call["assistant_model"] = self.model(call["assistant_model"])
        wall, own = time.perf_counter(), time.process_time()
        out = model.generate(prompts, eos_token_id=None, pad_token_id=0, **call)
        taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - own}
        return {**taken, "tokens": [list(map(int, row[len(prompts[0]) :])) for row in out]}


class Theirs:
    """transformers, in a process of its own."""

    def __init__(self, python: str, threads: int) -> None:
        self.process = subprocess.Popen(
            [python, str(PEER), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def measure(self, **call: Any) -> dict[str, Any]:
        """As `Ours.measure`. Raises RuntimeError for what transformers raised."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compared(case: Case, call: dict[str, Any], sides: tuple[Any, Any], vocabulary: int, asked: Any) -> dict[str, Any]:
    """The ratios of all rounds, our own milliseconds a token, and how many of the rows have the same tokens."""
    ratios, own, same = [], [], []
    generator = np.random.default_rng(7)
    for turn in range(asked.rounds + 1):
        prompts = generator.integers(30, vocabulary, (call["rows"], PROMPT)).tolist()
        settings = dict(call["settings"])
        if "guidance_scale" in settings:
            settings["negative_prompt_ids"] = [row[::-1] for row in prompts]
        arguments = {"folder": call["folder"], "prompts": prompts, "settings": settings}
        found = {side: sides[side].measure(**arguments) for side in ((0, 1) if turn % 2 else (1, 0))}
        mine, reference = found[0], found[1]
        assert [len(row) for row in mine["tokens"]] == [len(row) for row in reference["tokens"]], case.name
        if turn:
            ratios.append(reference[asked.clock] / mine[asked.clock])
            own.append(1000 * mine[asked.clock] / settings["max_new_tokens"])
            same += [a == b for a, b in zip(mine["tokens"], reference["tokens"], strict=True)]
    return {"ratios": ratios, "own": statistics.median(own), "same": f"{sum(same)}/{len(same)}"}


def calls(name: str, folders: dict[str, str], asked: Any) -> Iterator[tuple[Case, dict[str, Any]]]:
    """What is measured on a model."""
    for case in CASES:
        if asked.only not in case.name or (case.old and not asked.peer_python):
            continue
        settings = {"max_new_tokens": SHAPES[name].new, "do_sample": False, **case.settings}
        if "assistant_model" in settings:
            settings["assistant_model"] = folders[name + ", first half"]
        for rows in asked.rows:
            if rows == 1 or not case.alone:
                yield case, {"rows": rows, "folder": folders[name], "settings": settings}


def ratios(folder: Path, asked: Any) -> None:
    """Prints the table of ratios."""
    folders = {}
    for name in asked.models:
        sizes = SHAPES[name].sizes
        half = {**sizes, "num_hidden_layers": sizes["num_hidden_layers"] // 2}
        folders[name] = str(write_model(folder / name, sizes))
        folders[name + ", first half"] = str(write_model(folder / f"{name}-half", half))
    new = Theirs(sys.executable, asked.threads)
    old = Theirs(asked.peer_python, asked.threads) if asked.peer_python else None
    ours = Ours()
    print("| model | strategy | rows | ratio (lowest - highest) | ours, ms a token | equal rows |")
    print("|---|---|---|---|---|---|")
    for name in asked.models:
        for case, call in calls(name, folders, asked):
            found = compared(case, call, (ours, old if case.old else new), SHAPES[name].sizes["vocab_size"], asked)
            each = found["ratios"]
            ratio = f"{statistics.median(each):.2f} ({min(each):.2f} - {max(each):.2f})"
            same = "" if call["settings"]["do_sample"] else found["same"]
            print(f"| {name} | {case.name} | {call['rows']} | {ratio} | {found['own']:.2f} | {same} |", flush=True)
    for side in (new, old):
        if side is not None:
            side.end()


def host(folder: Path, asked: Any) -> None:
    """Prints what a step costs outside the model's pass: the thread's own time, the median of the rounds."""
    model = AutoModelForCausalLM.from_pretrained(
        write_model(folder / "host", SHAPES["tiny"].sizes), backend="torch", dtype="float32"
    )
    step, inside, steps = model.step, 0.0, 0

    def timed(*arguments: Any) -> Any:
        nonlocal inside, steps
        begin = time.thread_time()
        forward = step(*arguments)
        inside += time.thread_time() - begin
        steps += 1
        return forward

    model.step, model.burst = timed, None  # step by step, as rows go whose tokens somebody waits for
    print("\n| strategy | host, us a step | model's pass, us |\n|---|---|---|")
    generator = np.random.default_rng(3)
    for name, settings in HOST:
        if asked.only not in name:
            continue
        outside, passes = [], []
        for turn in range(asked.rounds + 1):
            prompt, inside, steps = generator.integers(30, 1000, PROMPT).tolist(), 0.0, 0
            begin = time.thread_time()
            model.generate([prompt], max_new_tokens=64, **{"do_sample": False, "eos_token_id": None, **settings})
            if turn:
                outside.append(1e6 * (time.thread_time() - begin - inside) / steps)
                passes.append(1e6 * inside / steps)
        print(f"| {name} | {statistics.median(outside):.0f} | {statistics.median(passes):.0f} |", flush=True)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with TemporaryDirectory() as folder:
        ratios(Path(folder), asked)
        host(Path(folder), asked)


if __name__ == "__main__":
    main()
