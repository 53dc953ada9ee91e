"""Measures logits processors against those of transformers, side by side: ratios of one interleaved run.

python bench/processors.py [--vocabulary 150000] [--rows 32] [--context 1000] [--rounds 9] [--only top-p]

Each round runs every side of a case, in an order that turns; a ratio is transformers' time to ours in the same round,
and the median of the rounds is printed with the lowest and highest. `torch` are tensors on a CPU with one thread on
both sides, `numpy` what the native backend hands over. The last column is our own time a step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from transformers.generation import logits_process as theirs

from fabula import processors as ours
from fabula.context import Context

END = 7


@dataclass(frozen=True, slots=True)
class Case:
    """A processor and what it is made with."""

    name: str
    processor: str
    arguments: dict[str, Any]


CASES = (
    Case("repetition penalty", "RepetitionPenaltyLogitsProcessor", {"penalty": 1.2}),
    Case("top-p 0.9", "TopPLogitsWarper", {"top_p": 0.9}),
    Case("top-p 0.5", "TopPLogitsWarper", {"top_p": 0.5}),
    Case("no repeated 2-gram", "NoRepeatNGramLogitsProcessor", {"ngram_size": 2}),
    Case("no repeated 4-gram", "NoRepeatNGramLogitsProcessor", {"ngram_size": 4}),
    Case("temperature", "TemperatureLogitsWarper", {"temperature": 0.7}),
    Case("top-k", "TopKLogitsWarper", {"top_k": 50}),
    Case("top-h", "TopHLogitsWarper", {"top_h": 0.4}),
    Case("min-p", "MinPLogitsWarper", {"min_p": 0.05}),
    Case("typical", "TypicalLogitsWarper", {"mass": 0.9}),
    Case("epsilon", "EpsilonLogitsWarper", {"epsilon": 3e-4}),
    Case("eta", "EtaLogitsWarper", {"epsilon": 3e-4}),
    Case("min length, over", "MinLengthLogitsProcessor", {"min_length": 10, "eos_token_id": END}),
    Case("min length, under", "MinLengthLogitsProcessor", {"min_length": 10_000, "eos_token_id": END}),
    Case("suppressed tokens", "SuppressTokensLogitsProcessor", {"suppress_tokens": [1, 2, 3]}),
    Case("bad words", "NoBadWordsLogitsProcessor", {"bad_words_ids": [[5], [6, 8], [9, 9, 9]]}),
    Case("forced end, far", "ForcedEOSTokenLogitsProcessor", {"max_length": 4000, "eos_token_id": END}),
    Case("normalization", "LogitNormalization", {}),
)


def contexts(tokens: np.ndarray, prompt: int) -> dict[str, Context]:
    """What the engine hands over, in either framework: made once, as its matrix of tokens stays from step to step."""
    rows, length = tokens.shape
    parts = (tokens, np.full(rows, length, np.int32), np.full(rows, prompt, np.int32))
    return {name: Context(*(module(name).asarray(part, "int32") for part in parts)) for name in ("torch", "numpy")}


def module(name: str) -> Any:
    """The array functions of a framework."""
    return import_module(f"fabula.arrays.{name}")


def sides(case: Case, tokens: np.ndarray, scores: np.ndarray) -> dict[str, Callable[[], Any]]:
    """What is timed: name -> one step."""
    reference = getattr(theirs, case.processor)(**case.arguments)
    mine = getattr(ours, case.processor)(**case.arguments)
    ids, tensor = torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(scores)
    given = contexts(tokens, tokens.shape[1] // 2)
    return {
        "transformers": lambda: reference(ids, tensor),
        "torch": lambda: mine.process(tensor, given["torch"]),
        "numpy": lambda: mine.process(scores, given["numpy"]),
    }


def timed(step: Callable[[], Any]) -> float:
    """Milliseconds of one step."""
    begin = time.perf_counter()
    step()
    return 1000 * (time.perf_counter() - begin)


def times(steps: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every side in every round, the best of three steps; a first round is not counted."""
    names = list(steps)
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken = min(timed(steps[name]) for _ in range(3))
            if turn:
                found[name].append(taken)
    return found


def line(name: str, found: dict[str, list[float]]) -> str:
    """A row of the table."""
    cells = []
    for side in ("torch", "numpy"):
        ratios = [a / b for a, b in zip(found["transformers"], found[side], strict=True)]
        cells.append(f"{statistics.median(ratios):6.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    own = " / ".join(f"{statistics.median(found[side]):.1f}" for side in ("torch", "numpy"))
    return f"| {name:<20} | {cells[0]:<22} | {cells[1]:<22} | {own:<13} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=150_000)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--context", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    tokens = generator.zipf(1.3, (asked.rows, asked.context)).clip(max=asked.vocabulary) - 1
    scores = generator.normal(0, 3, (asked.rows, asked.vocabulary)).astype(np.float32)
    print(
        f"{asked.rows} rows, vocabulary {asked.vocabulary}, {asked.context} tokens of context; ratios above 1: faster"
    )
    print(f"| {'':<20} | {'torch':<22} | {'numpy':<22} | {'ours, ms':<13} |")
    print("|---|---|---|---|")
    for case in CASES:
        if asked.only in case.name:
            print(line(case.name, times(sides(case, tokens.astype(np.int32), scores), asked.rounds)), flush=True)


if __name__ == "__main__":
    main()
